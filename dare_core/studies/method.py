"""Method: how every number is made. The recipe and its table, the models' competence on each log, and the rules of
judging tried on models that differ in nothing (paper, appendix B; conventions of this study)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from dare_core.evaluation.intervals import Interval, Replicates, all_above, interval, none_above
from dare_core.report.claims import judge, load_claims
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table, stored_rows
from dare_core.studies import settings
from dare_core.studies.convergence import speedup
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.scores import columns
from dare_core.studies.settings import numbers
from dare_core.studies.sweeps import FEW_AND_MANY, made_with, own_best, steps_to_batch
from dare_core.training.loop import STEPS_AN_EPOCH, batch_samples
from dare_core.training.runs import Run, RunStore

OWN_BEST_RATES, OWN_BEST_STEPS = (0.003, 0.01), (1_000, 2_000, 4_000)
"""The grid from which each model's own best setting is taken."""

Config = settings.MethodConfig


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record


def competence_row(experiment: Experiment) -> dict[str, Any]:
    """Whether the models have learned on a log: what stands before every verdict there."""
    found = experiment.competence
    training = experiment.run_config(CLAIMED, 1).training
    rule = found.rule_interval
    return {
        "log": experiment.name,
        "kind": experiment.log.card.kind,
        "training samples": experiment.training_samples,
        "samples per step": batch_samples(training, experiment.training_samples),
        "steps per epoch": found.steps,
        "better of DARE and TWIN": found.model,
        "its test AUC": found.model_auc,
        "best rule without learning": found.rule,
        **columns("the rule's test AUC", rule.estimate, rule.low, rule.high),
        "competence": found.value,
        "judged": found.not_learned or "yes",
    }


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


def verdict_of(claim: str, quantity: str, measured: Interval) -> str:
    """The verdict of a quantity's rule."""
    return judge(load_claims()[claim].of(quantity), measured).verdict


def identical_rows(experiment: Experiment, count: int) -> list[dict[str, Any]]:
    """P2, O1 and C1 asked of `count` TWINs that differ in nothing but initial weights and sample order.

    Each model in turn is the reference of P2 and the champion of O1; C1 compares every pair. On truth that is known
    every *contradicted* of P2, every *holds* or *contradicted* of O1, and every C1 that excludes 1 is a false alarm.
    """
    experiment.compute([(REFERENCE, {"repetition": r}) for r in range(count)])
    runs: list[list[Run]] = [experiment.runs_at(REFERENCE, repetition=r) for r in range(count)]
    auc: list[Replicates] = [experiment.auc_replicates([run.test_probability for run in own]) for own in runs]
    rows = []

    def add(claim: str, quantity: str, which: str, measured: Interval, alarms: Sequence[str]) -> None:
        verdict = verdict_of(claim, quantity, measured)
        values = columns("estimate", measured.estimate, measured.low, measured.high)
        alarm = "yes" if verdict in alarms else "no"
        rows.append({"log": experiment.name, "claim": claim, "models": which, **values, "false alarm": alarm})

    for at in range(count):
        others = {str(o): auc[o] - auc[at] for o in range(count) if o != at}
        turned = {name: -values for name, values in others.items()}
        which = f"TWIN {at} and the others"
        add("P2", "best_variant_minus_twin", which, none_above(others), ("contradicted",))
        sure = ("holds", "holds, smaller", "contradicted")
        add("O1", "dare_minus_best_other", which, all_above(turned), sure)
    for first, second in combinations(range(count), 2):
        measured = speedup(experiment, runs[first], runs[second], 0.7)
        sure = ("holds", "holds, smaller", "contradicted")
        add("C1", "speedup_70", f"TWIN {first} and TWIN {second}", measured, sure)
    return rows


def run(config: Config) -> Result:
    """Measure the models' competence on every log; search the recipe and try the rules where that is asked for."""
    record = Record("method", config, RunStore())
    tables: dict[str, list[dict[str, Any]]] = {"competence": [], "recipe": [], "own_best": [], "identical": []}
    for name in config.log_names:
        experiment = record.use(name)
        tables["competence"].append(competence_row(experiment))
        if config.search:
            recipe = recipe_rows(experiment)
            tables["recipe"] += recipe
            tables["own_best"] += own_best_rows(experiment, recipe)
        if config.identical > 1 and experiment.worlds is None:
            tables["identical"] += identical_rows(experiment, config.identical)
    record.tables |= tables
    record.write()
    return Result(config, record)


def show_competence(result: Result) -> Shown:
    """Competence on the logs of this build."""
    caption = "Have the models learned? Test samples, means over seeds or worlds"
    return table(result.record.tables["competence"], caption)


def show_recipe(result: Result) -> Shown:
    """The recipe's table: validation AUC by learning rate and steps."""
    rows = result.record.tables["recipe"] or stored_rows("method", "recipe")
    cells: dict[tuple[str, float], dict[str, Any]] = {}
    for row in rows:
        where = {key: row[key] for key in ("log", "learning rate")}
        line = cells.setdefault((row["log"], row["learning rate"]), where)
        line.setdefault(f"{row['steps per epoch']:,} steps", {})[row["model"]] = row["validation AUC"]
    shown = []
    for line in cells.values():
        pairs = {
            column: f"{value[CLAIMED]:.3f} / {value[REFERENCE]:.3f} ({(value[CLAIMED] + value[REFERENCE]) / 2:.3f})"
            for column, value in line.items()
            if isinstance(value, Mapping)
        }
        shown.append({"log": line["log"], "learning rate": f"{line['learning rate']:g}"} | pairs)
    return table(shown, "Validation AUC of DARE / TWIN (their mean), means over three seeds or worlds")


def alarm_rows(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """How often each rule raised a false alarm."""
    counted = []
    for claim in dict.fromkeys(row["claim"] for row in rows):
        own = [row for row in rows if row["claim"] == claim]
        alarms = sum(row["false alarm"] == "yes" for row in own)
        counted.append({"claim": claim, "asked": len(own), "false alarms": alarms})
    return counted


def show_alarms(result: Result) -> Shown:
    """False alarms of the rules on identical models."""
    rows = result.record.tables["identical"] or stored_rows("method", "identical")
    return table(alarm_rows(rows), "Rules of judging, asked of TWINs that differ in nothing")


def show_identical(result: Result) -> Shown:
    """The intervals of P2, O1 and C1 on identical models."""
    rows = result.record.tables["identical"] or stored_rows("method", "identical")
    if not rows:
        return table([], "Identical models")
    style()
    drawn, axes = plt.subplots(1, 3, figsize=(11, 4))
    titles = {
        "P2": "P2: largest lead of the others",
        "O1": "O1: smallest lead over the others",
        "C1": "C1: ratio of iterations, every pair",
    }
    for axis, (claim, title) in zip(axes, titles.items(), strict=True):
        own = sorted((row for row in rows if row["claim"] == claim), key=lambda row: row["estimate"])
        for at, row in enumerate(own):
            ink = colour("TWIN" if row["false alarm"] == "yes" else "rule")
            axis.plot([row["estimate, low"], row["estimate, high"]], [at, at], color=ink, lw=1.5)
            axis.plot(row["estimate"], at, "o", ms=3, color=ink)
        axis.axvline(1 if claim == "C1" else 0, color="black", lw=1)
        if claim == "C1":
            axis.set_xscale("log")
            axis.set_xticks([0.5, 1, 2], ["0.5", "1", "2"])
            axis.minorticks_off()
        axis.set(title=title, yticks=[], xlabel="ratio" if claim == "C1" else "AUC")
    counts = "; ".join(f"{row['claim']}: {row['false alarms']} of {row['asked']}" for row in alarm_rows(rows))
    return figure(drawn, f"Intervals on identical models, null value as a line. False alarms: {counts}.")


def show_own_best(result: Result) -> Shown:
    """DARE against TWIN with each at its own best setting."""
    rows = result.record.tables["own_best"] or stored_rows("method", "own_best")
    shown = [
        {"log": row["log"], "claim": row["claim"], "quantity": row["quantity"]}
        | columns("at own best settings", row["estimate"], row["low"], row["high"])
        | {"settings": row["settings"].replace("'", "").replace("_", " ")}
        for row in rows
    ]
    return table(shown, "AUC differences of DARE and TWIN, each at its own best setting")


def show_stored_competence(result: Result) -> Shown:
    """Competence on the logs whose results are stored."""
    return show_stored_table("method", "competence", "Competence")
