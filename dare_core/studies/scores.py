"""Test scores of models and rules, with intervals, on all samples and on the subsets that tell leaks apart."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from dare_core.intervals import Draws, Scored, auc_resamples, difference_interval, mean_interval
from dare_core.metrics import grouped_auc, logloss
from dare_core.rules import REGRESSION
from dare_core.samples import Samples
from dare_core.studies.common import Experiment


def scored(samples: Samples, values: np.ndarray, keep: np.ndarray | None = None) -> Scored:
    """Flat test scores; users are numbered by test target. `keep` (H, C) selects samples."""
    users = np.broadcast_to(np.arange(len(samples))[:, None], values.shape)
    mask = ~np.isnan(values) if keep is None else keep & ~np.isnan(values)
    return Scored(samples.labels[mask], values[mask], users[mask])


Subset = Literal["all", "new", "seen", "unseen"]
SUBSETS: tuple[Subset, ...] = ("all", "new", "seen", "unseen")


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


Resampled = tuple[dict[str, tuple[np.ndarray, np.ndarray]], Draws]
"""Bootstrapped AUC of several scores: name -> (seeds,), (seeds, B); and the draws they share."""


def auc_table(experiment: Experiment, scores: Mapping[str, Sequence[np.ndarray]], subset: Subset = "all") -> Resampled:
    """Bootstrapped AUC of several models or rules on a subset of the test samples."""
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    rule = experiment.config.samples_for(experiment.log).negative_rule
    draws = Draws.make(len(tests[0]), len(tests))
    return {
        name: auc_resamples(
            [scored(t, v, subset_mask(t, subset, rule)) for t, v in zip(tests, values, strict=True)], draws
        )
        for name, values in scores.items()
    }, draws


def score_rows(
    experiment: Experiment,
    scores: Mapping[str, Sequence[np.ndarray]],
    everything: Resampled | None = None,
    claimed: str = "DARE",
) -> list[dict[str, Any]]:
    """Test AUC with interval, on all samples and the subsets, GAUC and logloss, a line each score.

    `everything` is `auc_table` of the same scores on all samples, where the caller has it already.
    """
    rows: dict[str, dict[str, Any]] = {name: {"log": experiment.name, "model or rule": name} for name in scores}
    for subset in SUBSETS:
        given = everything if subset == "all" else None
        resamples, draws = given or auc_table(experiment, scores, subset)
        for name, values in resamples.items():
            interval = mean_interval(values, draws)
            rows[name][f"AUC {subset}"] = interval.estimate
            if subset == "all":
                rows[name]["95 %"] = f"[{interval.low:.4f}, {interval.high:.4f}]"
                if name != claimed and claimed in resamples:
                    difference = difference_interval(resamples[claimed], values, draws)
                    rows[name][f"{claimed} minus it"] = difference.estimate
                    rows[name]["difference 95 %"] = f"[{difference.low:.4f}, {difference.high:.4f}]"
                    rows[name]["detectable"] = difference.detectable
                else:
                    rows[name] |= {f"{claimed} minus it": None, "difference 95 %": "", "detectable": None}
    for name, seeds in scores.items():
        tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
        groups: dict[str, list[float]] = {"GAUC by user": [], "GAUC by category": [], "logloss": []}
        left_out: list[int] = []
        for test, probability in zip(tests, seeds, strict=True):
            kept = ~np.isnan(probability)
            users = np.broadcast_to(test.users.numpy()[:, None], probability.shape)[kept]
            labels = test.labels[kept]
            groups["GAUC by user"].append(grouped_auc(labels, probability[kept], users).value)
            categories = test.categories.numpy()[kept]
            by_category = grouped_auc(labels, probability[kept], categories)
            groups["GAUC by category"].append(by_category.value)
            left_out.append(by_category.left_out)
            if (name, 1) in experiment.runs or name == REGRESSION:  # rules give no probability
                groups["logloss"].append(logloss(labels, probability[kept]))
        for label, found in groups.items():
            rows[name][label] = float(np.mean(found)) if found else None
        rows[name]["categories of one class, left out"] = round(float(np.mean(left_out)))
    return list(rows.values())
