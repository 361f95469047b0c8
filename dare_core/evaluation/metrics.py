"""Metrics: AUC, GAUC, logloss, accuracy, mutual information. Each is defined once."""

import math
from dataclasses import dataclass

import numba
import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

Array = NDArray[np.float64]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve, ties counted half.

    Parameters
    ----------
    labels, scores : arrays of equal shape
        Labels are positive for clicked samples; higher scores mean that a click is more likely.

    Returns
    -------
    Between 0 and 1, 0.5 for scores without information; NaN unless both classes are present.

    >>> auc(np.array([1, 0, 0]), np.array([0.8, 0.3, 0.8]))
    0.75
    """
    labels, scores = labels.ravel(), scores.ravel()
    if not len(labels) or labels.min() == labels.max():
        return float("nan")
    return float(roc_auc_score(labels, scores))


def logloss(labels: np.ndarray, probability: np.ndarray) -> float:
    """Mean cross-entropy in nats of labels and probabilities of equal shape; at least 0, ln 2 for always 1/2.

    Probabilities are kept 1e-8 away from 0 and 1, in float64: float32 has no number between 1 - 1e-8 and 1.

    >>> round(logloss(np.array([1, 0]), np.array([0.5, 0.5])), 4)
    0.6931
    """
    clicked = probability.astype(np.float64).clip(1e-8, 1 - 1e-8)
    return float(-np.log(np.where(labels > 0, clicked, 1 - clicked)).mean())


def accuracy(labels: np.ndarray, probability: np.ndarray) -> float:
    """Share of samples on the right side of probability 1/2, between 0 and 1.

    >>> accuracy(np.array([1, 0, 0]), np.array([0.9, 0.2, 0.6])) == 2 / 3
    True
    """
    return float(((probability > 0.5) == (labels > 0)).mean())


@dataclass(frozen=True)
class GroupedAUC:
    """AUC within groups, weighted by samples; groups of one class are left out and counted."""

    value: float
    groups: int
    left_out: int


def grouped_auc(labels: np.ndarray, scores: np.ndarray, groups: np.ndarray) -> GroupedAUC:
    """GAUC (Zhu et al. 2017): mean over groups of the AUC within the group, weighted by its number of samples.

    Parameters
    ----------
    labels, scores, groups : arrays of equal shape
        The group is the user, or, as in the published code, the target's category.

    Returns
    -------
    A value between 0 and 1, NaN where no group has both classes; the number of groups that count, and of those left
    out. Within a group, AUC is the Mann-Whitney statistic with ties counted half.

    >>> grouped_auc(np.array([1, 0, 1, 0, 0]), np.array([2, 1, 1, 1, 0]), np.array([7, 7, 8, 8, 9]))
    GroupedAUC(value=0.75, groups=2, left_out=1)
    """
    frame = pl.DataFrame({"label": labels.ravel(), "score": scores.ravel(), "group": groups.ravel()})
    table = (
        frame.with_columns(pl.col("score").rank("average").over("group").alias("rank"))
        .group_by("group", maintain_order=True)
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

    Parameters
    ----------
    labels, scores : (n,)
    weights : (B, n)
        For example 0 for the samples of users that are left out, or how often a bootstrap drew each sample.

    Returns
    -------
    (B,) as `sklearn.metrics.roc_auc_score(..., sample_weight=w)` gives for each row, with one sort instead of B; NaN
    where a class is missing.

    >>> resampled_auc(np.array([1, 0, 0]), np.array([0.5, 0.9, 0.1]), np.array([[1, 1, 1], [1, 0, 1]])).tolist()
    [0.5, 1.0]
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
def table_information(table: np.ndarray) -> float:
    """`mutual_information` of one table (K, L)."""
    n = total = 0.0
    for j in range(table.shape[1]):
        for i in range(table.shape[0]):
            n += table[i, j]
    for j in range(table.shape[1]):
        column = 0.0
        for i in range(table.shape[0]):
            column += table[i, j]
        for i in range(table.shape[0]):
            if table[i, j] > 0:
                row = 0.0
                for k in range(table.shape[1]):
                    row += table[i, k]
                total += table[i, j] / n * math.log2(table[i, j] / column * (n / row))
    return max(total, 0.0)


@numba.njit(cache=True, parallel=True)
def _informations(tables: Array) -> Array:
    found = np.empty(len(tables))
    for i in numba.prange(len(tables)):
        found[i] = table_information(tables[i])
    return found


def mutual_information(tables: np.ndarray) -> Array:
    """Mutual information in bits of two discrete variables, estimated from counts.

    I = sum_xy p(x, y) log2(p(x, y) / (p(x) p(y))), with 0 log 0 = 0 (Cover & Thomas, 2.28).

    Parameters
    ----------
    tables : (..., K, L)
        Contingency tables: how often the first variable has its k-th value and the second its l-th.

    Returns
    -------
    (...,) at least 0, at most log2 of the smaller of K and L; 0 for tables without counts.

    >>> mutual_information(np.array([[[5, 0], [0, 5]], [[5, 5], [5, 5]]])).tolist()
    [1.0, 0.0]
    """
    flat = np.ascontiguousarray(tables, np.float64).reshape(-1, *tables.shape[-2:])
    return _informations(flat).reshape(tables.shape[:-2])  # type: ignore[no-any-return]
