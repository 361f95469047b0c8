"""Method: the search for the training recipe, and the verdict rules tried on models that do not differ (paper,
appendix B; conventions of this study)."""

import dataclasses
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from dare_core.evaluation.intervals import Interval, Replicates, all_above, interval, none_above
from dare_core.report.claims import judge, load_claims
from dare_core.studies import settings
from dare_core.studies.convergence import speedup
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment
from dare_core.studies.scores import FEW_AND_MANY, columns, made_with, own_best, steps_to_batch
from dare_core.studies.settings import numbers
from dare_core.training.loop import STEPS_AN_EPOCH
from dare_core.training.runs import Run

OWN_BEST_RATES, OWN_BEST_STEPS = (0.003, 0.01), (1_000, 2_000, 4_000)
"""Learning rates and steps per epoch among which each model's own best setting is sought."""


Config = settings.MethodConfig


def recipe_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """Validation and test AUC of DARE and TWIN at every learning rate and number of steps, means over seeds."""
    config = experiment.config
    assert isinstance(config, Config)
    grid = []
    for rate in map(float, config.rates.split(",")):
        for steps in numbers(config.steps):
            if rate > max(OWN_BEST_RATES) and steps > min(OWN_BEST_STEPS):
                continue  # higher rates than the recipe's are compared where there are fewest steps
            batch = None if steps == STEPS_AN_EPOCH else steps_to_batch(experiment.training_samples, steps)
            changes = {"learning_rate": rate, "batch_size": batch}
            grid += [(rate, steps, model, changes) for model in (CLAIMED, REFERENCE)]
    experiment.compute([(model, changes) for *_, model, changes in grid])
    rows = []
    for rate, steps, model, changes in grid:
        runs = experiment.runs_at(model, **changes)
        test = experiment.auc_replicates([run.test_probability for run in runs])[:, 0]
        rows.append(
            {
                "log": experiment.name,
                **made_with(experiment),
                "learning rate": rate,
                "steps per epoch": steps,
                "model": model,
                "seeds": config.seeds,
                "validation AUC": float(np.mean([run.best.auc for run in runs])),
                "lowest of a seed": min(run.best.auc for run in runs),
                "test AUC": float(test.mean()),
                "own best grid": rate in OWN_BEST_RATES and steps in OWN_BEST_STEPS,
            }
        )
    return rows


def own_best_rows(experiment: Experiment, recipe: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Claims about AUC differences of DARE and TWIN with each model at its own best setting of the search `recipe`:
    DARE minus TWIN and, with `few_and_many`, that with 5 retrieved behaviours less that with 100."""
    settings = {model: own_best(experiment, model, recipe) for model in (CLAIMED, REFERENCE)}
    if None in settings.values():
        return []

    config = experiment.config
    assert isinstance(config, Config)
    few, many = FEW_AND_MANY
    known = {model: changes for model, changes in settings.items() if changes is not None}
    asked = (config.top_k, *(FEW_AND_MANY if config.few_and_many else ()))
    experiment.compute([(model, changes | {"top_k": k}) for k in asked for model, changes in known.items()])

    def lead(top_k: int) -> Replicates:
        runs = [experiment.runs_at(model, top_k=top_k, **changes) for model, changes in known.items()]
        first, second = (experiment.auc_replicates([run.test_probability for run in own]) for own in runs)
        return first - second

    measured = {("O1", "dare_minus_twin"): interval(lead(config.top_k))}
    if config.few_and_many:
        measured["D1", "advantage_few_minus_many"] = interval(lead(few) - lead(many))
    return [
        {
            "log": experiment.name,
            **made_with(experiment),
            "claim": claim,
            "quantity": quantity,
            "settings": "; ".join(f"{model}: {changes}" for model, changes in settings.items()),
            **dataclasses.asdict(found),
        }
        for (claim, quantity), found in measured.items()
    ]


SURE = ("holds", "holds, smaller", "contradicted")
"""The verdicts that say that there is a difference."""


def identical_rows(experiment: Experiment, count: int) -> list[dict[str, Any]]:
    """P2, O1 and C1 judged on `count` TWINs that differ in nothing but initial weights and sample order.

    Each model in turn is the reference of P2 and the one that O1 claims to be best; C1 compares every pair. There is
    nothing to find: every *contradicted* of P2, every *holds* or *contradicted* of O1, and every C1 that excludes 1
    is a false alarm.
    """
    experiment.compute([(REFERENCE, {"repetition": r}) for r in range(count)])
    runs: list[list[Run]] = [experiment.runs_at(REFERENCE, repetition=r) for r in range(count)]
    auc: list[Replicates] = [experiment.auc_replicates([run.test_probability for run in own]) for own in runs]
    claims = load_claims()
    rows = []

    def add(claim: str, quantity: str, which: str, measured: Interval, alarms: Sequence[str]) -> None:
        verdict = judge(claims[claim].of(quantity), measured).verdict
        values = columns("estimate", measured.estimate, measured.low, measured.high)
        alarm = "yes" if verdict in alarms else "no"
        rows.append({"log": experiment.name, "claim": claim, "models": which, **values, "false alarm": alarm})

    for at in range(count):
        others = {str(o): auc[o] - auc[at] for o in range(count) if o != at}
        which = f"TWIN {at} and the others"
        add("P2", "best_variant_minus_twin", which, none_above(others), ("contradicted",))
        add("O1", "dare_minus_best_other", which, all_above({name: -values for name, values in others.items()}), SURE)
    for first, second in combinations(range(count), 2):
        measured = speedup(experiment, runs[first], runs[second], 0.7)
        add("C1", "speedup_70", f"TWIN {first} and TWIN {second}", measured, SURE)
    return rows
