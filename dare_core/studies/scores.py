"""Test scores of models and rules, with intervals, on all samples and on the subsets that tell leaks apart; each
model's own best setting, from the search of the chapter *Method*; and that chapter's trial of the verdict rules."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from itertools import combinations
from typing import Any, Literal

import numpy as np

from dare_core.data.samples import Samples
from dare_core.evaluation.baselines import REGRESSION
from dare_core.evaluation.intervals import Interval, Replicates, all_above, interval, none_above
from dare_core.evaluation.metrics import grouped_auc, logloss
from dare_core.files import canonical_json, short_hash
from dare_core.report.claims import load_claims
from dare_core.report.stored import stored_rows
from dare_core.report.verdict import judge
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment
from dare_core.studies.learning import speedup
from dare_core.training.loop import STEPS_AN_EPOCH

FEW_AND_MANY = (5, 100)
"""Retrieved behaviours that D1 compares."""
NOT_SEARCHED = "not computed at own best settings"
SURE = ("holds", "holds, smaller", "contradicted")
"""The verdicts that say that there is a difference."""
Subset = Literal["all", "new", "seen", "unseen"]
SUBSETS: tuple[Subset, ...] = ("all", "new", "seen", "unseen")
Scores = Mapping[str, Sequence[np.ndarray]]
"""Test scores (H, C) by model or rule, one array per seed."""
Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], float]
"""A metric of labels, probabilities, categories and users of samples, each (n,)."""
METRICS: Mapping[str, Metric] = {
    "gauc_by_category": lambda labels, values, categories, users: grouped_auc(labels, values, categories).value,
    "gauc_by_user": lambda labels, values, categories, users: grouped_auc(labels, values, users).value,
    "logloss": lambda labels, values, categories, users: logloss(labels, values),
}
"""GAUC as the published code groups it and within each user's samples, and logloss, of which lower is better (O5)."""


def subset_mask(samples: Samples, subset: Subset, rule: str) -> np.ndarray:
    """(H, C) samples of a subset.

    *new*: positives whose item the user had not clicked before (with negatives of rule `any`, negatives are
    restricted alike); *seen* and *unseen*: targets whose item does or does not occur in training.
    """
    if subset == "all":
        return np.ones(samples.items.shape, bool)
    if subset == "new":
        keep = samples.new.numpy().copy()
        if rule != "any":
            keep[:, 1:] = True
        return keep
    seen = samples.seen.numpy()
    return seen if subset == "seen" else ~seen


def auc_table(experiment: Experiment, scores: Scores, subset: Subset = "all") -> dict[str, Replicates]:
    """AUC replicates of several models or rules on a subset of the test samples."""
    rule = experiment.config.samples_for(experiment.log).negative_rule
    keep = [subset_mask(experiment.samples(seed)["test"], subset, rule) for seed in experiment.seeds]
    return {name: experiment.auc_replicates(values, keep) for name, values in scores.items()}


def metric_replicates(experiment: Experiment, model: str, metric: Metric) -> Replicates:
    """(S, 1 + G) a metric of a model's test samples, of all users and without each group of them."""
    rows = []
    for seed, probability in zip(experiment.seeds, experiment.test_scores(model), strict=True):
        test = experiment.samples(seed)["test"]
        parts = [test.labels, probability, test.categories.numpy()]
        parts.append(np.broadcast_to(test.users.numpy()[:, None], probability.shape))
        known = ~np.isnan(probability)
        weights = experiment.weights(test).astype(bool)
        rows.append([metric(*(part[kept[:, None] & known] for part in parts)) for kept in weights])
    return np.array(rows)


def grouped_means(experiment: Experiment, name: str, seeds: Sequence[np.ndarray]) -> dict[str, float | None]:
    """GAUC by user and by category, and logloss where the scores are probabilities: means over seeds."""
    found: dict[str, list[float]] = {"GAUC by user": [], "GAUC by category": [], "logloss": [], "left out": []}
    for seed, probability in zip(experiment.seeds, seeds, strict=True):
        test = experiment.samples(seed)["test"]
        kept = ~np.isnan(probability)
        labels, scores = test.labels[kept], probability[kept]
        users = np.broadcast_to(test.users.numpy()[:, None], probability.shape)[kept]
        found["GAUC by user"].append(grouped_auc(labels, scores, users).value)
        by_category = grouped_auc(labels, scores, test.categories.numpy()[kept])
        found["GAUC by category"].append(by_category.value)
        found["left out"].append(by_category.left_out)
        if (name, 1) in experiment.runs or name == REGRESSION:  # rules give no probability
            found["logloss"].append(logloss(labels, scores))
    means = {label: float(np.mean(values)) if values else None for label, values in found.items()}
    return means | {"categories of one class, left out": round(means.pop("left out") or 0)}


def score_rows(
    experiment: Experiment, scores: Scores, everything: Mapping[str, Replicates] | None = None
) -> list[dict[str, Any]]:
    """Test AUC with interval, on all samples and the subsets, GAUC and logloss, one row per model or rule.

    `everything` is `auc_table` of the same scores on all samples, where the caller has it already.
    """
    known = auc_table(experiment, scores) if everything is None else everything
    rows = []
    subsets = {subset: auc_table(experiment, scores, subset) for subset in SUBSETS if subset != "all"}
    for name, values in known.items():
        lead = interval(known[CLAIMED] - values) if CLAIMED in known and name != CLAIMED else None
        row: dict[str, Any] = {"log": experiment.name, "model or rule": name, **columns("AUC", interval(values))}
        row |= {f"AUC {subset}": float(table[name][:, 0].mean()) for subset, table in subsets.items()}
        row |= {**columns(f"{CLAIMED} minus it", lead), "detectable": lead.detectable if lead else None}
        rows.append(row | grouped_means(experiment, name, scores[name]))
    return rows


def columns(name: str, found: Interval | None) -> dict[str, float | None]:
    """An interval as three columns, which a table shows as one; empty columns for none."""
    estimate, low, high = (found.estimate, found.low, found.high) if found else (None, None, None)
    return {name: estimate, f"{name}, low": low, f"{name}, high": high}


def steps_to_batch(experiment: Experiment, steps: int) -> int | None:
    """Samples per step that give so many steps per epoch; None for the recipe's own number: the same runs."""
    return None if steps == STEPS_AN_EPOCH else max(2, round(experiment.training_samples / steps))


def made_with(experiment: Experiment) -> dict[str, Any]:
    """By what a row of a search can be told to be of the same log, embedding size, epochs and protocol: samples, K,
    initial values, and whether the published code's habits are on."""
    config = experiment.config
    protocol = {
        "samples": config.samples_for(experiment.log).model_dump(mode="json"),
        "top_k": config.top_k,
        "initial_scale": config.initial_scale,
        "official_compat": config.official_compat,
    }
    return {
        "fingerprint": experiment.fingerprint,
        "size": config.size,
        "epochs": config.epochs,
        "protocol": short_hash(canonical_json(protocol)),
    }


def searched(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of a search of this very log by this very protocol: another log's best setting is not its."""
    asked = made_with(experiment)
    return [row for row in rows if all(row.get(key) == value for key, value in asked.items())]


def own_best(experiment: Experiment, model: str, recipe: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The training settings of a model's highest validation AUC among the rows of the chapter *Method*'s search; None
    where this log was not searched."""
    found = [row for row in searched(experiment, recipe) if row["own best grid"] and row["model"] == model]
    if not found:
        return None
    best = max(found, key=lambda row: float(row["validation AUC"]))
    return {"learning_rate": best["learning rate"], "batch_size": steps_to_batch(experiment, best["steps per epoch"])}


def own_best_rows(
    experiment: Experiment, recipe: Sequence[Mapping[str, Any]], few_and_many: bool
) -> list[dict[str, Any]]:
    """Claims about AUC differences of DARE and TWIN with each model at its own best setting of the search `recipe`:
    DARE minus TWIN and, with `few_and_many`, that with 5 retrieved behaviours less that with 100."""
    known = {}
    for model in (CLAIMED, REFERENCE):
        if (setting := own_best(experiment, model, recipe)) is None:
            return []
        known[model] = setting
    few, many = FEW_AND_MANY
    usual = experiment.config.top_k
    asked = (usual, *(FEW_AND_MANY if few_and_many else ()))
    runs = iter(experiment.compute([(model, own | {"top_k": k}) for k in asked for model, own in known.items()]))
    lead = {k: experiment.auc_of(next(runs)) - experiment.auc_of(next(runs)) for k in asked}  # DARE minus TWIN
    measured = {("O1", "dare_minus_twin"): interval(lead[usual])}
    if few_and_many:
        measured["D1", "advantage_few_minus_many"] = interval(lead[few] - lead[many])
    settings = "; ".join(f"{model}: {own}" for model, own in known.items())
    return [
        {
            "log": experiment.name,
            **made_with(experiment),
            "claim": claim,
            "quantity": quantity,
            "settings": settings,
            **asdict(found),
        }
        for (claim, quantity), found in measured.items()
    ]


def at_own_best(experiment: Experiment, claim: str, quantity: str) -> Interval | None:
    """A claim's quantity with DARE and TWIN each at its own best setting, as the chapter *Method* has stored it; None
    where this log was not searched."""
    rows = searched(experiment, stored_rows("method", "own_best"))
    names = [entry.name for entry in fields(Interval)]
    for row in rows:
        if (row["claim"], row["quantity"]) == (claim, quantity):
            return Interval(**{name: row[name] for name in names})
    return None


def identical_rows(experiment: Experiment, count: int) -> list[dict[str, Any]]:
    """P2, O1 and C1 judged on `count` TWINs that differ in nothing but initial weights and sample order.

    Each model in turn is the reference of P2 and the one that O1 claims to be best; C1 compares every pair. There is
    nothing to find: every *contradicted* of P2, every *holds* or *contradicted* of O1, and every C1 that excludes 1
    is a false alarm.
    """
    runs = experiment.compute([(REFERENCE, {"repetition": r}) for r in range(count)])
    auc = [experiment.auc_of(own) for own in runs]
    asked: list[tuple[str, str, str, Interval, Sequence[str]]] = []
    for at in range(count):
        others = {str(o): auc[o] - auc[at] for o in range(count) if o != at}
        lead = all_above({name: -values for name, values in others.items()})
        which = f"TWIN {at} and the others"
        asked.append(("P2", "best_variant_minus_twin", which, none_above(others), ("contradicted",)))
        asked.append(("O1", "dare_minus_best_other", which, lead, SURE))
    for first, second in combinations(range(count), 2):
        ratio = speedup(experiment, runs[first], runs[second], 0.7).ratio
        assert ratio is not None  # of a level of AUC there is one, known or not
        asked.append(("C1", "speedup_70", f"TWIN {first} and TWIN {second}", ratio, SURE))
    claims, rows = load_claims(), []
    for claim, quantity, which, measured, alarms in asked:
        values = columns("estimate", measured)
        alarm = "yes" if judge(claims[claim].of(quantity), measured).verdict in alarms else "no"
        rows.append({"log": experiment.name, "claim": claim, "models": which, **values, "false alarm": alarm})
    return rows
