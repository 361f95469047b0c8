"""Test scores of models and rules, with intervals, on all samples and on the subsets that tell leaks apart; and each
model's own best setting, from the search of the chapter *Method*."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal

import numpy as np

from dare_core.data.samples import Samples, training_counts
from dare_core.evaluation.baselines import REGRESSION, RULES, rule_features
from dare_core.evaluation.intervals import Interval, Replicates, interval
from dare_core.evaluation.metrics import auc, grouped_auc, logloss
from dare_core.files import canonical_json, short_hash
from dare_core.report.stored import stored_rows
from dare_core.studies.experiment import CLAIMED, Experiment
from dare_core.training.loop import STEPS_AN_EPOCH

Subset = Literal["all", "new", "seen", "unseen"]
SUBSETS: tuple[Subset, ...] = ("all", "new", "seen", "unseen")
Scores = Mapping[str, Sequence[np.ndarray]]
"""Test scores (H, C) by model or rule, one array per seed."""


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
        own = interval(values)
        row: dict[str, Any] = {"log": experiment.name, "model or rule": name}
        row |= columns("AUC", own.estimate, own.low, own.high)
        row |= {f"AUC {subset}": float(table[name][:, 0].mean()) for subset, table in subsets.items()}
        lead = interval(known[CLAIMED] - values) if CLAIMED in known and name != CLAIMED else None
        bounds = (lead.estimate, lead.low, lead.high) if lead else (None, None, None)
        row |= columns(f"{CLAIMED} minus it", *bounds)
        row["detectable"] = lead.detectable if lead else None
        rows.append(row | grouped_means(experiment, name, scores[name]))
    return rows


def columns(name: str, estimate: float | None, low: float | None, high: float | None) -> dict[str, float | None]:
    """An interval as three columns, which a table shows as one."""
    return {name: estimate, f"{name}, low": low, f"{name}, high": high}


FEW_AND_MANY = (5, 100)
"""Retrieved behaviours that D1 compares."""
NOT_SEARCHED = "not computed at own best settings"


def best_rule(experiment: Experiment, history: int | None = None) -> tuple[str, float]:
    """The rule without learning of highest validation AUC (mean over seeds), with its test AUC, for histories of
    another length too."""
    found: dict[str, dict[str, list[float]]] = {"validation": {}, "test": {}}
    for seed in experiment.seeds:
        splits = experiment.samples(seed, history=history or experiment.config.history)
        counts = training_counts(experiment.log_of(seed))
        for split, values in found.items():
            features = rule_features(splits[split], counts)
            for name, rule in RULES.items():
                values.setdefault(name, []).append(auc(splits[split].labels, rule(features)))
    best = max(RULES, key=lambda name: float(np.mean(found["validation"][name])))
    return best, float(np.mean(found["test"][best]))


def steps_to_batch(training_samples: int, steps: int) -> int:
    """Samples per step that give so many steps per epoch."""
    return max(2, round(training_samples / steps))


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
    steps = best["steps per epoch"]  # the recipe's own number gives the recipe's batch: the same runs
    batch = None if steps == STEPS_AN_EPOCH else steps_to_batch(experiment.training_samples, steps)
    return {"learning_rate": best["learning rate"], "batch_size": batch}


def at_own_best(experiment: Experiment, claim: str, quantity: str) -> Interval | None:
    """A claim's quantity with DARE and TWIN each at its own best setting, as the chapter *Method* has stored it; None
    where this log was not searched."""
    rows = searched(experiment, stored_rows("method", "own_best"))
    names = [entry.name for entry in fields(Interval)]
    for row in rows:
        if (row["claim"], row["quantity"]) == (claim, quantity):
            return Interval(**{name: row[name] for name in names})
    return None
