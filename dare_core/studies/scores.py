"""Test scores of models and rules, with intervals, on all samples and on the subsets that tell leaks apart."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dare_core.data.samples import Samples
from dare_core.evaluation.baselines import REGRESSION
from dare_core.evaluation.intervals import Replicates, interval
from dare_core.evaluation.metrics import grouped_auc, logloss
from dare_core.studies.experiment import CLAIMED, Experiment

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
