"""What a retrieved behaviour is worth: its mutual information with the label, read off the training samples
(paper, 4.3 and figure 9a). These gains judge retrieval; `dare_core.evaluation.retrieval` holds what is judged.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numba
import numpy as np
import torch

from dare_core.data.samples import Samples
from dare_core.evaluation.metrics import Array, binary_mutual_information, table_information

BLOCK_BYTES = 512 * 2**20
"""Memory for the counts of one block of target categories."""
BLOCK = 4_096


@dataclass(frozen=True)
class Cells:
    """Training counts behind the histories of n candidates, N behaviours each (columns: newest last).

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
        """(n, N) mutual information of cell and label in bits, binary by binary as published."""
        negatives, positives = self.totals[:, :1], self.totals[:, 1:]
        return binary_mutual_information(
            self.positive, positives - self.positive, self.negative, negatives - self.negative
        )

    @property
    def raises(self) -> np.ndarray:
        """(n, N) true where a click is more likely with the behaviour than over all samples of the category."""
        return self.positive * self.totals.sum(1, keepdims=True) > (self.positive + self.negative) * self.totals[:, 1:]

    @property
    def chance(self) -> Array:
        """(n, N) the information that would be found if labels were permuted within the target category."""
        return expected_information(self.totals, self.positive + self.negative)


@numba.njit(cache=True)
def _count(counts: np.ndarray, place: np.ndarray, targets: np.ndarray, history: np.ndarray) -> None:
    """counts[place of target, behaviour, column, label] += 1 for every behaviour of every sample."""
    for i in range(targets.shape[0]):
        for j in range(targets.shape[1]):
            t = place[targets[i, j]]
            if t >= 0:
                label = 1 if j == 0 else 0
                for k in range(history.shape[1]):
                    if history[i, k] > 0:
                        counts[t, history[i, k], k, label] += 1


def category_totals(samples: Samples, size: int = 0) -> np.ndarray:
    """(categories, 2) samples with each target category, negative and positive; at least `size` lines."""
    categories = samples.categories.numpy()
    width = max(size, int(categories.max()) + 1)
    everything = np.bincount(categories.ravel(), minlength=width)
    positive = np.bincount(categories[:, 0], minlength=width)
    return np.stack([everything - positive, positive], 1)


def cells(train: Samples, test: Samples, least_samples: int, block_bytes: int = BLOCK_BYTES) -> Iterator[Cells]:
    """The cells of all test candidates whose category is the target of `least_samples` training samples.

    Target categories are counted a block at a time, and candidates come in chunks, so that memory stays
    bounded whatever the number of samples and categories.
    """
    test_categories, train_categories = test.categories.numpy(), train.categories.numpy()
    width = int(max(test_categories.max(), train_categories.max())) + 1
    totals = category_totals(train, width)
    frequent = np.flatnonzero(totals.sum(1) >= least_samples)
    behaviours = int(train.clicks.categories.max()) + 1
    columns = np.arange(train.history)
    step = max(1, block_bytes // (behaviours * train.history * 2 * 4))
    for first in range(0, len(frequent), step):
        ids = frequent[first : first + step]
        place = np.full(width, -1)
        place[ids] = np.arange(len(ids))
        row, candidate = np.nonzero(place[test_categories] >= 0)
        if not len(row):
            continue
        counts = np.zeros((len(ids), behaviours, train.history, 2), np.int32)
        chosen = np.flatnonzero((place[train_categories] >= 0).any(1))
        for at in range(0, len(chosen), BLOCK):
            index = chosen[at : at + BLOCK]
            history = train.batch(torch.from_numpy(index)).history_categories.numpy()
            _count(counts, place, train_categories[index], history)
        for at in range(0, len(row), BLOCK):
            r, c = row[at : at + BLOCK], candidate[at : at + BLOCK]
            history = test.batch(torch.from_numpy(r)).history_categories.numpy()
            target = test_categories[r, c]
            found = counts[place[target][:, None], history, columns]  # (n, N, 2)
            yield Cells(r, c, found[..., 1], found[..., 0], totals[target], history > 0)


@numba.njit(cache=True)
def _expected(negatives: np.ndarray, positives: np.ndarray, hits: np.ndarray, found: np.ndarray) -> None:
    """Mean information over the hypergeometric number k of positives among the hits, summed from its mode."""
    for i in range(len(hits)):
        m, positive, negative = hits[i], positives[i], negatives[i]
        n = positive + negative
        low, high = max(0, m - negative), min(m, positive)
        mode = min(max(low, (m + 1) * (positive + 1) // (n + 2)), high)
        weight = total = 0.0
        for up in (True, False):
            k, p = mode, 1.0
            while low <= k <= high and p > 1e-16:
                if up or k < mode:
                    weight += p
                    total += p * table_information(k, positive - k, m - k, negative - m + k)
                if up:
                    p *= (m - k) * (positive - k) / ((k + 1) * (negative - m + k + 1))
                    k += 1
                else:
                    p *= k * (negative - m + k) / ((m - k + 1) * (positive - k + 1))
                    k -= 1
        found[i] = total / weight


def expected_information(totals: np.ndarray, hits: np.ndarray) -> Array:
    """Exact mean of the estimated information under permuted labels, in bits.

    Arguments: `totals` (n, 2) negative and positive samples, `hits` (n, N) samples in each cell. With labels
    permuted, the positives among the hits are hypergeometric: no permutation has to be drawn. Equal to
    `sklearn.metrics.cluster.expected_mutual_information` of the 2 x 2 table, in bits.
    """
    pairs, place = np.unique(totals, axis=0, return_inverse=True)
    width = int(hits.max(initial=0)) + 1
    keys, inverse = np.unique(place.reshape(-1, 1) * width + hits, return_inverse=True)
    pair, m = np.divmod(keys, width)
    found = np.empty(len(keys))
    _expected(pairs[pair, 0], pairs[pair, 1], m, found)
    return found[inverse].reshape(hits.shape)


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


def judged_gains(train: Samples, test: Samples, rule: GainRule) -> Iterator[tuple[Cells, np.ndarray, Array]]:
    """The cells of test candidates with which are judged (n,), and their gains (n, N) in bits, chunk by chunk.

    A thin cell has no gain (nothing is known of it); in the published code it keeps its gain. Histories with
    more than `most_thin` thin behaviours are not judged.
    """
    for found in cells(train, test, rule.least_samples):
        thin = rule.thin(found)
        values = found.information
        if not rule.published:
            values = np.where(thin, 0.0, values)
        yield found, thin.sum(1) <= rule.most_thin, values


def information_gains(train: Samples, test: Samples, rule: GainRule) -> Gains:
    """Gains of all test candidates, from the training samples: see `judged_gains`."""
    shape = (*test.categories.shape, test.history)
    judged = np.zeros(shape[:2], bool)
    information, above, signed = (np.zeros(shape, np.float32) for _ in range(3))
    for found, kept, values in judged_gains(train, test, rule):
        judged[found.row, found.candidate] = kept
        information[found.row, found.candidate] = values
        above[found.row, found.candidate] = np.maximum(values - found.chance, 0.0)
        signed[found.row, found.candidate] = np.where(found.raises, values, 0.0)
    return Gains(judged, information, above, signed)
