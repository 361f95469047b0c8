"""Relevance of behaviours, estimated on training samples: the mutual information of "a behaviour of category b is at
position p" and the label, given the target's category (paper, section 4.3). It is the map of figure 8a, and the gain by
which NDCG scores retrieval (figure 9a).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch
from scipy.sparse import csr_matrix

from dare_core.data.samples import Samples
from dare_core.evaluation.intervals import leave_out
from dare_core.evaluation.metrics import Array, mutual_information, table_information

BLOCK_BYTES = 512 * 2**20
"""Memory for the counts of one block of target categories."""
BLOCK = 4_096


@numba.njit(cache=True)
def _count(
    out: np.ndarray,
    dense: bool,
    order: np.ndarray,
    row: np.ndarray,
    first: np.ndarray,
    behaviours: np.ndarray,
    candidates: np.ndarray,
    width: int,
    positions: int,
) -> None:
    """Count hits by the flat index of their cell (target category, behaviour category, position from 1, label).

    A hit is a behaviour in the history of a candidate, both of a category that is counted. `dense`: `out` holds the
    counts of the cells; else the cell of each hit is written to it, sample after sample in the given order. The history
    of the clicked row `row` (H,) begins at `first` (H,) at the earliest; `behaviours` (rows,) below `width` and
    `candidates` (H, C), the clicked one first, are numbers of categories, -1 for those that are not counted.
    """
    at = 0
    for h in order:
        for behaviour in range(row[h] - 1, first[h] - 1, -1):
            b, position = behaviours[behaviour], row[h] - 1 - behaviour
            if b < 0:
                continue
            for c in range(candidates.shape[1]):
                if candidates[h, c] >= 0:
                    cell = ((candidates[h, c] * width + b) * positions + position) * 2 + (c == 0)
                    if dense:
                        out[cell] += 1
                    else:
                        out[at] = cell
                        at += 1


def cell_information(hits: Array, totals: Array) -> Array:
    """(...,) mutual information in bits of cell and label, from the samples in the cell (..., 2) and in all (..., 2),
    negative and positive; binary by binary, as published."""
    return mutual_information(np.stack([hits, totals - hits], -2)[..., ::-1])


@numba.njit(cache=True)
def _expected(negatives: np.ndarray, positives: np.ndarray, hits: np.ndarray, found: np.ndarray) -> None:
    """Mean information over the hypergeometric number k of positives among the hits, summed from its mode."""
    table = np.empty((2, 2))
    for i in range(len(hits)):
        m, positive, negative = hits[i], positives[i], negatives[i]
        low, high = max(0, m - negative), min(m, positive)
        mode = min(max(low, (m + 1) * (positive + 1) // (positive + negative + 2)), high)
        weight = total = 0.0
        for up in (True, False):
            k, p = mode, 1.0
            while low <= k <= high and p > 1e-16:
                if up or k < mode:
                    table[0, 0], table[0, 1] = k, m - k
                    table[1, 0], table[1, 1] = positive - k, negative - m + k
                    weight += p
                    total += p * table_information(table)
                if up:
                    p *= (m - k) * (positive - k) / ((k + 1) * (negative - m + k + 1))
                    k += 1
                else:
                    p *= k * (negative - m + k) / ((m - k + 1) * (positive - k + 1))
                    k -= 1
        found[i] = total / weight


def expected_information(totals: np.ndarray, hits: np.ndarray) -> Array:
    """Exact mean of the estimated information under permuted labels, in bits: what cells show by chance.

    Parameters
    ----------
    totals : (n, 2) negative and positive samples.
    hits : (n, N) samples in each cell.

    Returns
    -------
    (n, N), as `sklearn.metrics.cluster.expected_mutual_information` of the 2 x 2 table (in nats). With labels permuted,
    the positives among the hits are hypergeometric: no permutation has to be drawn.

    >>> expected_information(np.array([[3, 2]]), np.array([[2, 5]])).round(4).tolist()
    [[0.2954, 0.0]]
    """
    pairs, place = np.unique(totals, axis=0, return_inverse=True)
    width = int(hits.max(initial=0)) + 1
    keys, inverse = np.unique(place.reshape(-1, 1) * width + hits, return_inverse=True)
    pair, m = np.divmod(keys, width)
    found = np.empty(len(keys))
    _expected(pairs[pair, 0], pairs[pair, 1], m, found)
    return found[inverse].reshape(hits.shape)


def category_totals(samples: Samples, size: int = 0) -> np.ndarray:
    """(categories, 2) samples with each target category, negative and positive; at least `size` rows."""
    categories = samples.categories.numpy()
    width = max(size, int(categories.max()) + 1)
    everything = np.bincount(categories.ravel(), minlength=width)
    positive = np.bincount(categories[:, 0], minlength=width)
    return np.stack([everything - positive, positive], 1)


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
        """Number of users that were counted."""
        return self.hits.shape[0]

    def _sums(self, weights: Array | None = None) -> tuple[Array, Array]:
        """Hits (T, T, P, 2) and samples (T, 2) of all users, each counted `weights` (U,) times."""
        weights, t = np.ones(self.users) if weights is None else weights, len(self.categories)
        return (weights @ self.hits).reshape(t, t, self.positions, 2), (weights @ self.samples).reshape(t, 2)

    def mutual_information(self, weights: Array | None = None) -> Array:
        """(T, T, P) mutual information in bits of (behaviour b at p) and label, given target category c; each user
        counts `weights` (U,) times."""
        hits, totals = self._sums(weights)
        return cell_information(hits, totals[:, None, None])

    def replicates(self, weights: Array, statistic: Callable[[Array], float]) -> Array:
        """(B,) a statistic of the mutual information (T, T, P) under each of several weightings (B, U) of the users."""
        return np.array([statistic(self.mutual_information(each)) for each in weights])

    def chance(self) -> Array:
        """(T, T, P) mutual information that is expected if labels were permuted within a target category."""
        hits, totals = (counts.astype(np.int64) for counts in self._sums())
        return expected_information(totals, hits.sum(-1).reshape(len(totals), -1)).reshape(hits.shape[:-1])

    def floor(self) -> Array:
        """(T,) large-sample mean of mutual information where there is none: 1 / (2 n ln 2) bits for n samples."""
        return 1 / (2 * np.maximum(self._sums()[1].sum(1), 1) * np.log(2))


def relevance_counts(samples: Samples, categories: int = 10, positions: int = 50) -> RelevanceCounts:
    """Count over samples (published: the training samples) for the most frequent target categories, as targets and as
    behaviours, at the newest positions."""
    positions = min(positions, samples.history)
    everything = samples.categories.numpy()
    frequency = np.bincount(everything.ravel())
    frequency[0] = 0
    top = np.argsort(-frequency, kind="stable")[: min(categories, int((frequency > 0).sum()))]
    t = len(top)
    place = np.full(len(frequency) + 1, -1, np.int32)
    place[top] = np.arange(t)
    # A category that is no sample's target is not counted; its id may be beyond the end of `place`.
    behaviours, candidates = place[np.minimum(samples.clicks.categories.numpy(), len(frequency))], place[everything]
    _, users = np.unique(samples.users.numpy(), return_inverse=True)
    # How many hits a user has follows from sums over the log, so that each is written where it belongs.
    row = samples.row.numpy()
    first = np.maximum(row - positions, samples.start.numpy())
    counted = np.append(0, np.cumsum(behaviours >= 0))
    own = (counted[row] - counted[first]) * (candidates >= 0).sum(1)
    order = np.argsort(users, kind="stable")
    ends = np.append(0, np.cumsum(own[order]))[np.append(0, np.cumsum(np.bincount(users)))]
    width = t * t * positions * 2
    index = np.int32 if max(width, int(ends[-1])) <= np.iinfo(np.int32).max else np.int64
    cells_hit = np.empty(ends[-1], index)
    _count(cells_hit, False, order, row, first, behaviours, candidates, t, positions)
    # Hits of one user in one cell, about one in a hundred, stay apart: every use of the matrix adds them up.
    hits = csr_matrix((np.ones(len(cells_hit)), cells_hit, ends.astype(index)), (len(ends) - 1, width))
    kept = candidates >= 0
    owner = np.broadcast_to(users[:, None], kept.shape)[kept]
    totals = csr_matrix(
        (np.ones(len(owner)), (owner, candidates[kept] * 2 + samples.labels[kept])), (len(ends) - 1, 2 * t)
    )
    return RelevanceCounts(top, positions, hits, totals)


def user_weights(samples: Samples, groups: np.ndarray | None) -> Array:
    """(1 + G, U) weights of the users of counts: all, then without each group; `groups` (H,) are of the targets."""
    users, first = np.unique(samples.users.numpy(), return_index=True)
    return leave_out(None if groups is None else groups[first], len(users))


@dataclass(frozen=True)
class Cells:
    """Training counts of the cells of n candidates' histories, N behaviours each (columns: newest last).

    A cell is (target category, behaviour category, position). `positive` and `negative` (n, N): training
    samples of the candidate's category whose history has the behaviour's category at its position, by label;
    `totals` (n, 2): all training samples of that category, negative and positive. Padding counts nothing.
    """

    row: np.ndarray  # (n,) which history
    candidate: np.ndarray  # (n,) which of its candidates
    positive: np.ndarray
    negative: np.ndarray
    totals: np.ndarray
    behaviours: np.ndarray  # (n, N) true where there is one

    @property
    def information(self) -> Array:
        """(n, N) mutual information of cell and label in bits."""
        return cell_information(np.stack([self.negative, self.positive], -1), self.totals[:, None])

    @property
    def raises(self) -> np.ndarray:
        """(n, N) true where a click is more likely with the behaviour than over all samples of the category."""
        return self.positive * self.totals.sum(1, keepdims=True) > (self.positive + self.negative) * self.totals[:, 1:]

    @property
    def chance(self) -> Array:
        """(n, N) information that is expected if labels were permuted within the target category."""
        return expected_information(self.totals, self.positive + self.negative)


def cells(train: Samples, test: Samples, least_samples: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Cells]:
    """The cells of all test candidates whose category is the target of at least `least_samples` training samples.

    Target categories are counted a block at a time, and candidates come in chunks, so that memory stays
    bounded whatever the number of samples and categories.
    """
    test_categories, train_categories = test.categories.numpy(), train.categories.numpy()
    width = int(max(test_categories.max(), train_categories.max())) + 1
    totals = category_totals(train, width)
    frequent = np.flatnonzero(totals.sum(1) >= least_samples)
    clicked, row = train.clicks.categories.numpy(), train.row.numpy()
    first = np.maximum(row - train.history, train.start.numpy())
    behaviours = int(clicked.max()) + 1
    position = np.arange(train.history)[::-1]  # of each column, from 0
    step = max(1, block_bytes // (behaviours * train.history * 2 * 4))
    for start in range(0, len(frequent), step):
        ids = frequent[start : start + step]
        place = np.full(width, -1)
        place[ids] = np.arange(len(ids))
        histories, candidates = np.nonzero(place[test_categories] >= 0)
        if not len(histories):
            continue
        counts = np.zeros((len(ids), behaviours, train.history, 2), np.int32)
        targets = place[train_categories]
        chosen = np.flatnonzero((targets >= 0).any(1))
        _count(counts.reshape(-1), True, chosen, row, first, clicked, targets, behaviours, train.history)
        for at in range(0, len(histories), BLOCK):
            r, c = histories[at : at + BLOCK], candidates[at : at + BLOCK]
            history = test.batch(torch.from_numpy(r)).history_categories.numpy()
            target = test_categories[r, c]
            found = counts[place[target][:, None], history, position]  # (n, N, 2)
            yield Cells(r, c, found[..., 1], found[..., 0], totals[target], history > 0)


@dataclass(frozen=True)
class GainRule:
    """Which cells are trusted. The published values are 700, 50 and 20, with `published`."""

    least_samples: int  # training samples of a target category that is judged
    least_cell: int  # training samples of a cell, below which it is thin
    most_thin: int  # thin behaviours of a history that is judged
    published: bool = False

    def thin(self, found: Cells) -> np.ndarray:
        """(n, N) behaviours whose cell is thin: fewer than `least_cell` samples.

        `published`: fewer than `least_cell` positives, or fewer negatives. Ours does not look at the label:
        the most telling cells have few negatives.
        """
        fewest = found.positive + found.negative
        if self.published:
            fewest = np.minimum(found.positive, found.negative)
        return found.behaviours & (fewest < self.least_cell)


@dataclass(frozen=True)
class Gains:
    """Gains of the behaviours of H histories for C candidates (columns: newest last), in bits."""

    judged: np.ndarray  # (H, C) candidates that pass the rule
    information: np.ndarray  # (H, C, N) float32, 0 for thin cells (kept where `published`) and padding
    above_chance: np.ndarray  # (H, C, N) float32, what exceeds the level of permuted labels, at least 0
    signed: np.ndarray  # (H, C, N) float32, the information where the behaviour makes a click more likely, else 0


def information_gains(train: Samples, test: Samples, rule: GainRule) -> Gains:
    """Gains of all test candidates, from the training samples.

    A thin cell has no gain (nothing is known of it); in the published code it keeps its gain. Histories with
    more than `most_thin` thin behaviours are not judged.
    """
    shape = (*test.categories.shape, test.history)
    judged = np.zeros(shape[:2], bool)
    information, above, signed = (np.zeros(shape, np.float32) for _ in range(3))
    for found in cells(train, test, rule.least_samples):
        at, thin = (found.row, found.candidate), rule.thin(found)
        judged[at] = thin.sum(1) <= rule.most_thin
        values = found.information if rule.published else np.where(thin, 0.0, found.information)
        information[at], signed[at] = values, np.where(found.raises, values, 0.0)
        above[at] = np.maximum(values - found.chance, 0.0)
    return Gains(judged, information, above, signed)
