"""True relevance as the paper measures it: mutual information of behaviour and label (4.3, figure 8a)."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix

from dare_core.metrics import Array, binary_mutual_information
from dare_core.samples import Samples

BLOCK = 4_096


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

    def floor(self) -> Array:
        """(T,) what mutual information is expected where there is none: 1 / (2 n ln 2) bits for n samples."""
        n = np.asarray(self.samples.sum(0)).reshape(-1, 2).sum(1)
        return 1 / (2 * np.maximum(n, 1) * np.log(2))


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
    lookup = torch.from_numpy(place)
    _, users = np.unique(samples.users.numpy(), return_inverse=True)
    labels = np.broadcast_to(samples.labels, everything.shape)
    shape = (int(users.max()) + 1, t * t * positions * 2)

    rows, columns = [], []
    for at in range(0, len(samples), BLOCK):
        batch = samples.batch(slice(at, at + BLOCK))
        recent = batch.history_categories[:, -positions:].long()
        # A category that is no sample's target has no place; its id may lie beyond the lookup's end.
        known = recent < len(lookup)
        behaviour = torch.where(known, lookup[recent.clamp(max=len(lookup) - 1)], -1).numpy()  # (h, P)
        target = place[everything[at : at + BLOCK]]  # (h, C)
        h, c, p = np.nonzero((target[:, :, None] >= 0) & (behaviour[:, None, :] >= 0))
        position = positions - 1 - p  # column P - 1 is the newest
        pair = target[h, c] * t + behaviour[h, p]
        columns.append((pair * positions + position) * 2 + labels[at : at + BLOCK][h, c])
        rows.append(users[at : at + BLOCK][h])
    row, column = np.concatenate(rows), np.concatenate(columns)
    hits = csr_matrix((np.ones(len(row)), (row, column)), shape)
    kept = place[everything] >= 0
    owner = np.broadcast_to(users[:, None], everything.shape)[kept]
    totals = csr_matrix(
        (np.ones(int(kept.sum())), (owner, place[everything[kept]] * 2 + labels[kept])), (shape[0], t * 2)
    )
    return RelevanceCounts(top, positions, hits, totals)


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
    return float(np.polyfit(x, same / mean, 1)[0]) if mean > 0 else float("nan")
