"""Discriminability of a representation: mutual information of its clusters with the label (paper, section 4.4).

K-means Q maps the representation h of every sample to a cluster; discriminability is MI(Q(h), Y) in nats, with
Y whether the candidate was clicked. The definitions, fixed before any result was read:

- *Pooled history* is h as the paper writes it: the weighted sum of e_i ⊙ v_t where the head gets it (target-aware
  and product forms), and [weighted sum of e_i, v_t] where it gets their concatenation.
- *Whole input* is everything that the head gets, before its BatchNorm, as the published code clusters it: with
  target-aware representation [v, h, v ⊙ h]; for the other forms the same as the pooled history.
- *Samples* are the test samples (paper: "on the test data"), all candidates of every target. Training samples
  are left out: a model has memorised part of their labels.
- *Chance level* is the mean over permuted labels. Exactly one candidate of a target is clicked, so what is
  permuted is which one; labels permuted over all samples would give clusters that hold a user's candidates
  together a chance level that they cannot reach. The mutual information that is judged is that less its chance
  level: the plain value grows with the number of clusters that are occupied, which differs between models.
- Clusters are fixed when groups of users are left out for an interval.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.stats import entropy
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics.cluster import expected_mutual_information
from threadpoolctl import threadpool_limits

from dare_core.data.samples import Samples
from dare_core.errors import InputError
from dare_core.evaluation.metrics import Array, mutual_information
from dare_core.models.click_model import ClickModel, Form

Representation = Literal["pooled history", "whole input"]
CLUSTERS = (2, 5, 10, 20, 30, 50, 100, 200, 300, 500, 700, 1_000)
"""Numbers of clusters of the published analysis."""
FEWEST = 5
"""Samples per cluster below which a number of clusters is left out: what is left there is mostly chance."""
FITTED = 256_000
"""Samples that K-means is fitted to, counted anew in each pass; of more samples, so many are drawn."""
PERMUTATIONS = 20
BLOCK = 512
"""Targets whose representations are computed at once."""


def usable(numbers: tuple[int, ...], samples: int) -> list[int]:
    """The numbers of clusters with at least `FEWEST` samples per cluster. Raises InputError where there are none."""
    kept = [number for number in sorted(set(numbers)) if number * FEWEST <= samples]
    if not kept:
        raise InputError(
            f"{samples} test samples are fewer than {FEWEST} for each of {min(numbers)} clusters, "
            "the smallest number asked for: ask for fewer clusters or use a log with more users."
        )
    return kept


def part_of(features: torch.Tensor, form: Form, representation: Representation) -> torch.Tensor:
    """The part (..., W) of a head's input (..., F) that is clustered: see the head of this module."""
    if representation == "pooled history" and form == "target_aware":
        return features[..., 2 * (features.shape[-1] // 3) :]
    return features


@torch.no_grad()
def representations(
    model: ClickModel, samples: Samples, kinds: tuple[Representation, ...]
) -> dict[Representation, np.ndarray]:
    """Representations (H, C, W) float32 of every candidate, in evaluation mode, computed in blocks."""
    model.eval()
    found: dict[Representation, np.ndarray] = {}
    for at in range(0, len(samples), BLOCK):
        features = model.compute(samples.batch(slice(at, at + BLOCK))).features
        for kind in kinds:
            part = part_of(features, model.form, kind)
            if kind not in found:
                found[kind] = np.empty((*samples.items.shape, part.shape[-1]), np.float32)
            found[kind][at : at + BLOCK] = part.numpy()
    return found


def cluster(vectors: np.ndarray, number: int, seed: int) -> np.ndarray:
    """(n,) int32 K-means cluster of each row of vectors (n, W), by mini-batches (as published).

    It is fitted until it stops improving, in at most 100 passes and to at most `FITTED` samples (of more, so
    many are drawn), because over millions of samples it hardly ever stops by itself; all rows are then
    assigned. One thread: the sums of several threads, and with them the clusters, change with their number.
    Beside the vectors, which are not copied where they are contiguous float32, memory is small.
    """
    fitted = vectors
    if len(vectors) > FITTED:
        fitted = vectors[np.random.default_rng(seed).choice(len(vectors), FITTED, replace=False)]
    passes = min(100, FITTED // len(fitted))
    with threadpool_limits(1):
        means = MiniBatchKMeans(number, max_iter=passes, random_state=seed, n_init=1, compute_labels=False)
        return means.fit(fitted).predict(vectors)


def information(clicked: np.ndarray, total: np.ndarray) -> Array:
    """(...) mutual information in nats of cluster and label, from the clicked and all samples (..., K) of each.

    Clusters without samples add nothing.
    """
    return mutual_information(np.stack([clicked, total - clicked], -1)) * np.log(2)


def leave_one_out(counts: np.ndarray) -> np.ndarray:
    """(G + 1, K): the sum of counts (G, K), then that sum without each of the G groups (none if G = 1)."""
    whole = counts.sum(0, keepdims=True)
    return whole if len(counts) == 1 else np.concatenate([whole, whole - counts])


@dataclass(frozen=True)
class Discriminability:
    """Of one clustering; values (G + 1,) are of all users, then without each group of users."""

    plain: Array  # (G + 1,) mutual information, nats
    chance: Array  # (G + 1,) its mean over permuted labels
    spread: float  # its standard deviation over permuted labels
    normalised: float  # over the mean of both entropies
    adjusted: float  # adjusted mutual information: chance by permuting labels over all samples, scaled to at most 1

    @property
    def above_chance(self) -> Array:
        """(G + 1,) mutual information less its chance level."""
        return self.plain - self.chance


def discriminability(
    clusters: np.ndarray, number: int, groups: np.ndarray | None = None, permutations: int = PERMUTATIONS, seed: int = 0
) -> Discriminability:
    """Mutual information of clusters (H, C) with the label (the first candidate is clicked), and its chance level.

    `groups` (H,) number the group of users of each target, for the jackknife; without, only the whole is
    computed. The permutations depend on `seed` alone, so those of several models are the same.
    """
    targets, candidates = clusters.shape
    of = np.zeros(targets, np.int64) if groups is None else groups.astype(np.int64)
    size = int(of.max()) + 1

    def count(which: np.ndarray) -> np.ndarray:  # (targets,) or (targets, C) clusters -> (G + 1, K)
        key = (of if which.ndim == 1 else of[:, None]) * number + which
        return leave_one_out(np.bincount(key.ravel(), minlength=size * number).reshape(size, number))

    total = count(clusters)
    clicked = count(clusters[:, 0])
    generator = np.random.default_rng(seed)
    drawn = (generator.integers(candidates, size=(targets, 1)) for _ in range(permutations))
    chance = np.stack([information(count(np.take_along_axis(clusters, one, 1)[:, 0]), total) for one in drawn])
    plain = information(clicked, total)
    labels = np.array([targets, targets * (candidates - 1)])
    mean_entropy = (entropy(total[0]) + entropy(labels)) / 2
    table = np.stack([clicked[0], total[0] - clicked[0]], 1)
    expected = float(expected_mutual_information(table[total[0] > 0], int(total[0].sum())))
    return Discriminability(
        plain,
        chance.mean(0),
        float(chance[:, 0].std(ddof=1)),
        float(plain[0] / mean_entropy),
        float((plain[0] - expected) / (mean_entropy - expected)),
    )
