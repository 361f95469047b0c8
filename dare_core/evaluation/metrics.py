"""The metrics, each defined once."""

import math
from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve over all samples, ties counted half; NaN when not both classes are there."""
    labels, scores = labels.ravel(), scores.ravel()
    if not len(labels) or labels.min() == labels.max():
        return float("nan")
    return float(roc_auc_score(labels, scores))


def sample_logloss(labels: np.ndarray, probability: np.ndarray) -> Array:
    """Cross-entropy in nats of each sample; probabilities are kept 1e-8 away from 0 and 1 (in float64: float32 has
    no number between 1 - 1e-8 and 1)."""
    clicked = probability.astype(np.float64).clip(1e-8, 1 - 1e-8)
    return -np.log(np.where(labels > 0, clicked, 1 - clicked))


def logloss(labels: np.ndarray, probability: np.ndarray) -> float:
    """Mean cross-entropy in nats."""
    return float(sample_logloss(labels, probability).mean())


def accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Share of samples on the right side of probability 1/2."""
    return float(((probability > 0.5) == (labels > 0)).mean())


@dataclass(frozen=True)
class GroupedAUC:
    """AUC within groups, weighted by samples; groups of one class are left out and counted."""

    value: float
    groups: int
    left_out: int


def grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> GroupedAUC:
    """GAUC: the mean over groups of the AUC within the group, weighted by its number of samples.

    Arguments are flat arrays of equal length. Within a group, AUC is the Mann-Whitney statistic with ties
    counted half. (The published code's "GAUC" groups by the target's category, not by user: give either.)
    """
    frame = pl.DataFrame({"label": labels.ravel(), "score": scores.ravel(), "group": groups.ravel()})
    table = (
        frame.with_columns(pl.col("score").rank("average").over("group").alias("rank"))
        .group_by("group")
        .agg(
            pl.len().alias("n").cast(pl.Float64),
            pl.col("label").sum().alias("positives").cast(pl.Float64),
            pl.col("rank").filter(pl.col("label") > 0).sum().alias("ranks"),
        )
    )
    both = table.filter((pl.col("positives") > 0) & (pl.col("positives") < pl.col("n")))
    if not both.height:
        return GroupedAUC(float("nan"), 0, table.height)
    p = both["positives"].to_numpy()
    n = both["n"].to_numpy()
    within = (both["ranks"].to_numpy() - p * (p + 1) / 2) / (p * (n - p))
    return GroupedAUC(float(np.average(within, weights=n)), both.height, table.height - both.height)


def resampled_auc(labels: np.ndarray, scores: np.ndarray, weights: np.ndarray) -> Array:
    """AUC under several weightings of the samples at once, ties counted half.

    Arguments: labels and scores (n,), weights (B, n), for example how often a bootstrap drew each sample.
    Returns (B,). Equal to `sklearn.metrics.roc_auc_score(..., sample_weight=w)` for each row, with one sort
    in place of B; NaN where a class is missing.
    """
    if not len(scores):
        return np.full(len(weights), np.nan)
    order = np.argsort(scores, kind="stable")
    sorted_scores = scores[order]
    starts = np.flatnonzero(np.append(True, sorted_scores[1:] != sorted_scores[:-1]))  # of each tie
    weights = weights[:, order]
    positive = weights * (labels[order] > 0)
    negative = weights - positive
    if len(starts) < len(scores):
        positive, negative = (np.add.reduceat(part, starts, axis=1) for part in (positive, negative))
    below = np.cumsum(negative, 1)
    total = positive.sum(1) * below[:, -1]
    below -= negative / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.einsum("bn,bn->b", positive, below) / total


@numba.njit(cache=True)
def table_information(n11: float, n10: float, n01: float, n00: float) -> float:
    """`binary_mutual_information` of one table."""
    a, b, c, d = float(n11), float(n10), float(n01), float(n00)
    n, total = a + b + c + d, 0.0
    for joint, first, second in ((a, a + b, a + c), (b, a + b, b + d), (c, c + d, a + c), (d, c + d, b + d)):
        if joint > 0:
            total += joint / n * math.log2(joint / first * (n / second))
    return max(total, 0.0)


@numba.njit(cache=True, parallel=True)
def _informations(n11: Array, n10: Array, n01: Array, n00: Array) -> Array:
    found = np.empty(len(n11))
    for i in numba.prange(len(n11)):
        found[i] = table_information(n11[i], n10[i], n01[i], n00[i])
    return found


def binary_mutual_information(n11: Array, n10: Array, n01: Array, n00: Array) -> Array:
    """Mutual information in bits of two binary variables from their four counts (element-wise).

    I = sum_xy p(x, y) log2(p(x, y) / (p(x) p(y))), with 0 log 0 = 0; 0 where there are no counts.
    """
    counts = np.broadcast_arrays(n11, n10, n01, n00)
    return _informations(*(part.ravel() for part in counts)).reshape(counts[0].shape)
