"""True relevance as the paper measures it: mutual information of behaviour and label (4.3, figure 8a)."""

from collections.abc import Callable
from dataclasses import dataclass

import numba
import numpy as np
from scipy.sparse import csr_matrix

from dare_core.data.samples import Samples
from dare_core.evaluation.gains import expected_information
from dare_core.evaluation.intervals import leave_out
from dare_core.evaluation.metrics import Array, binary_mutual_information


@dataclass(frozen=True)
class RelevanceCounts:
    """Counts of training samples by user, for T categories as target and as behaviour, and P positions.

    hits (U, T * T * P * 2): samples with target category c, behaviour category b at position p (from 1, the
    newest) and label y; samples (U, T * 2): samples with target category c and label y.
    """

    categories: np.ndarray  # (T,) ids, the most frequent targets first
    positions: int
    hits: csr_matrix
    samples: csr_matrix

    @property
    def users(self) -> int:
        """Users that were counted."""
        return self.hits.shape[0]

    def mutual_information(self, weights: Array | None = None) -> Array:
        """(T, T, P) mutual information in bits of (behaviour b at p) and label, given target category c.

        Binary by binary, as published. `weights` (U,) count each user so many times.
        """
        weights = np.ones(self.users) if weights is None else weights
        t = len(self.categories)
        hits = (weights @ self.hits).reshape(t, t, self.positions, 2)
        totals = (weights @ self.samples).reshape(t, 1, 1, 2)
        return binary_mutual_information(
            hits[..., 1], totals[..., 1] - hits[..., 1], hits[..., 0], totals[..., 0] - hits[..., 0]
        )

    def replicates(self, weights: Array, statistic: Callable[[Array], float]) -> Array:
        """(B,) a statistic of the mutual information under each of several weights (B, U)."""
        return np.array([statistic(self.mutual_information(each)) for each in weights])

    def chance(self) -> Array:
        """(T, T, P) the mutual information that would be found if labels were permuted within a target category."""
        t = len(self.categories)
        ones = np.ones(self.users)
        hits = (ones @ self.hits).reshape(t, t * self.positions, 2).sum(2).astype(np.int64)
        totals = (ones @ self.samples).reshape(t, 2).astype(np.int64)
        return expected_information(totals, hits).reshape(t, t, self.positions)

    def floor(self) -> Array:
        """(T,) what mutual information is expected where there is none: 1 / (2 n ln 2) bits for n samples."""
        n = np.asarray(self.samples.sum(0)).reshape(-1, 2).sum(1)
        return 1 / (2 * np.maximum(n, 1) * np.log(2))


@numba.njit(cache=True)
def write_hits(
    columns: np.ndarray,
    order: np.ndarray,
    row: np.ndarray,
    first: np.ndarray,
    clicked: np.ndarray,
    candidates: np.ndarray,
    categories: int,
    positions: int,
) -> None:
    """Write each hit's column, target after target in the given order.

    `clicked` (rows,) and `candidates` (H, C) are places of categories, -1 for those not counted; the clicked
    candidate is the first. A target's history begins at its `first` row at the earliest.
    """
    at = 0
    for h in order:
        for behaviour in range(row[h] - 1, first[h] - 1, -1):
            b, position = clicked[behaviour], row[h] - 1 - behaviour
            if b < 0:
                continue
            for c in range(candidates.shape[1]):
                if candidates[h, c] >= 0:
                    pair = candidates[h, c] * categories + b
                    columns[at] = (pair * positions + position) * 2 + (c == 0)
                    at += 1


def user_hits(samples: Samples, users: np.ndarray, place: np.ndarray, t: int, positions: int) -> csr_matrix:
    """The hits of `RelevanceCounts`. `users` (H,) number the targets' users from 0, `place` gives each category
    its place among the T, or -1.

    How many hits a user has follows from sums over the log, so that they are written where they belong, once.
    """
    ids = samples.clicks.categories.numpy()
    # A category that is no sample's target has no place; its id may lie beyond the end of `place`.
    clicked = np.append(place, -1)[np.minimum(ids, len(place))].astype(np.int32)
    candidates = place[samples.categories.numpy()].astype(np.int32)
    row = samples.row.numpy()
    first = np.maximum(row - positions, samples.start.numpy())
    counted = np.append(0, np.cumsum(clicked >= 0))
    hits = (counted[row] - counted[first]) * (candidates >= 0).sum(1)
    order = np.argsort(users, kind="stable")
    ends = np.append(0, np.cumsum(hits[order]))[np.append(0, np.cumsum(np.bincount(users)))]
    width = t * t * positions * 2
    index = np.int32 if max(width, int(ends[-1])) <= np.iinfo(np.int32).max else np.int64
    columns = np.empty(ends[-1], index)
    write_hits(columns, order, row, first, clicked, candidates, t, positions)
    # Hits of one user in one column, about one in a hundred, stay apart: every use of the matrix adds them up.
    return csr_matrix((np.ones(len(columns)), columns, ends.astype(index)), (len(ends) - 1, width))


def relevance_counts(samples: Samples, categories: int = 10, positions: int = 50) -> RelevanceCounts:
    """Count over samples (published: the training samples) for the most frequent target categories."""
    positions = min(positions, samples.history)
    everything = samples.categories.numpy()
    frequency = np.bincount(everything.ravel())
    frequency[0] = 0
    top = np.argsort(-frequency, kind="stable")[: min(categories, int((frequency > 0).sum()))]
    t = len(top)
    place = np.full(len(frequency), -1)
    place[top] = np.arange(t)
    _, users = np.unique(samples.users.numpy(), return_inverse=True)
    hits = user_hits(samples, users, place, t, positions)
    labels = np.broadcast_to(samples.labels, everything.shape)
    kept = place[everything] >= 0
    owner = np.broadcast_to(users[:, None], everything.shape)[kept]
    totals = csr_matrix(
        (np.ones(int(kept.sum())), (owner, place[everything[kept]] * 2 + labels[kept])), (hits.shape[0], t * 2)
    )
    return RelevanceCounts(top, positions, hits, totals)


def user_weights(samples: Samples, groups: np.ndarray | None) -> Array:
    """(1 + G, U) weights of the users of counts: all, then without each group; `groups` (H,) are of the targets."""
    users, first = np.unique(samples.users.numpy(), return_index=True)
    return leave_out(None if groups is None else groups[first], len(users))


def same_minus_other(information: Array, positions: int = 10) -> float:
    """Mean information of same-category behaviours minus that of other categories, in thousandths of a bit, at
    the newest positions. What counts show by chance is in both, and cancels."""
    recent = information[:, :, :positions].mean(2)
    same = np.eye(len(recent), dtype=bool)
    return float(1e3 * (recent[same].mean() - recent[~same].mean())) if len(recent) > 1 else float("nan")


def decay_slope(information: Array) -> float:
    """Slope of the mean same-category information on ln(position), relative to its mean over positions.

    Negative: relevance decays with position.
    """
    same = np.einsum("iip->p", information) / len(information)
    x = np.log(np.arange(1, len(same) + 1))
    mean = same.mean()
    return float(np.polyfit(x, same / mean, 1)[0]) if mean > 0 and len(same) > 1 else float("nan")
