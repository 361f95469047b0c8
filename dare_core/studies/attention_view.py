"""What the Attention accuracy chapter measures on one log, as replicates (`dare_core.evaluation.intervals`)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np

from dare_core.data.generated import world_of
from dare_core.data.logs import Log
from dare_core.data.samples import Samples
from dare_core.data.worlds import true_relevance
from dare_core.evaluation.attention_maps import mean_known, own_first, rank_correlation, symmetry
from dare_core.evaluation.gains import Gains
from dare_core.evaluation.intervals import Interval, Replicates, interval, wilson
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import RelevanceCounts, user_weights
from dare_core.evaluation.retrieval import Retrieval, candidate_ndcg, left_out_share, same_category_counts
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import WORLDS

GAINS = {"information": "NDCG", "signed": "signed", "above chance": "above chance", "true relevance": "true"}
"""Kinds of gain, and their columns: A3 is judged by the mutual information, the others are shown."""
LEAST_CATEGORIES = 3
"""Target categories below which nothing is said of the relevance between categories."""
Measure = Callable[[Array, Array], Array]
"""(T,) how near a map of learned attention (T, T, P), the second, is to one of relevance."""


@dataclass
class View:
    """One log: what matters in it, and what models and rules retrieve and attend to. Lists have one entry per seed."""

    experiment: Experiment
    splits: list[dict[str, Samples]] = field(default_factory=list)
    gains: list[Gains] = field(default_factory=list)
    truth: list[np.ndarray | None] = field(default_factory=list)  # (H, C, N) true relevance, on a generated world
    retrieved: dict[str, list[Retrieval]] = field(default_factory=dict)
    counts: list[RelevanceCounts] = field(default_factory=list)  # of the heat maps' categories
    maps: dict[str, list[Array]] = field(default_factory=dict)  # (T, T, P) learned attention
    true_maps: list[Array | None] = field(default_factory=list)  # (T, T, P)
    priors: list[RelevanceCounts] = field(default_factory=list)  # of all categories with enough training samples
    quality: dict[str, dict[str, list[Array]]] = field(default_factory=dict)  # gain -> name -> (H, C, K)

    @property
    def of_worlds(self) -> bool:
        """Whether each seed has a generated world of its own."""
        return self.experiment.name in WORLDS

    @cached_property
    def weights(self) -> list[Array]:
        """(1 + G, H) weights of the test targets."""
        return [self.experiment.weights(split["test"]) for split in self.splits]

    @cached_property
    def training_weights(self) -> list[Array]:
        """(1 + G, U) weights of the training users, by which mutual information is counted."""
        train = [split["train"] for split in self.splits]
        return [user_weights(samples, self.experiment.groups(samples)) for samples in train]

    @cached_property
    def same_category(self) -> list[np.ndarray]:
        """(H, C) behaviours of the candidate's category in each test history."""
        return [same_category_counts(split["test"]) for split in self.splits]

    @cached_property
    def left_out(self) -> dict[str, list[Array]]:
        """(H, C) same-category behaviours left out although there was room (`left_out_share`), by model or rule."""
        tests = [split["test"] for split in self.splits]
        return {
            name: [left_out_share(r.order, test) for r, test in zip(found, tests, strict=True)]
            for name, found in self.retrieved.items()
        }

    @cached_property
    def prior_relevance(self) -> list[Array]:
        """(T, T) relevance between all target categories with enough training samples."""
        return [category_relevance(c.chance(), c.mutual_information()) for c in self.priors]


def relevance_truth(log: Log, test: Samples) -> np.ndarray | None:
    """(H, C, N) true relevance of every behaviour of the test histories; None for a log that was not generated."""
    world = world_of(log)
    if world is None:
        return None
    history = test.batch(slice(None)).history_categories.numpy().astype(np.int64)
    targets = test.categories.numpy().astype(np.int64).T
    return np.stack([true_relevance(world, history, target) for target in targets], 1).astype(np.float32)


def true_map(log: Log, counts: RelevanceCounts) -> Array | None:
    """(T, T, P) true relevance of the heat maps' cells on a generated world where there is any, else None."""
    world = world_of(log)
    if world is None:
        return None
    t = len(counts.categories)
    history = np.repeat(counts.categories[:, None], counts.positions, 1)  # a history of b alone
    values = [true_relevance(world, history, np.full(t, c)) for c in counts.categories]
    relevance = np.stack(values)[..., ::-1]  # newest last -> position from 1
    return relevance if relevance.any() else None


def qualities(view: View, name: str, gain: str, ideal_at_end: bool) -> list[Array]:
    """(H, C, K) NDCG at 1..K of a model or rule by one kind of gain, NaN where there is none.

    The true relevance judges all candidates of a generated world, the other gains those that pass the rule of
    `GainRule`.
    """
    found = []
    for gains, truth, retrieval in zip(view.gains, view.truth, view.retrieved[name], strict=True):
        if gain != "true relevance":
            values = getattr(gains, gain.replace(" ", "_"))
            found.append(candidate_ndcg(values, retrieval.order, gains.judged, ideal_at_end))
        elif truth is None:
            found.append(np.full(retrieval.order.shape, np.nan))
        else:
            found.append(candidate_ndcg(truth, retrieval.order, np.ones(gains.judged.shape, bool), ideal_at_end))
    return found


def candidate_means(values: Sequence[Array], weights: Sequence[Array]) -> Replicates:
    """(S, 1 + G) mean over candidates of values (H, C), NaN left out, by the weights (1 + G, H) of their targets."""
    rows = []
    for own, each in zip(values, weights, strict=True):
        known = np.isfinite(own)
        with np.errstate(invalid="ignore"):
            rows.append(each @ np.where(known, own, 0).sum(1) / (each @ known.sum(1)))
    return np.stack(rows)


def ndcg_at_k(view: View, gain: str, name: str) -> Replicates:
    """NDCG at K of a model or rule."""
    return candidate_means([values[..., -1] for values in view.quality[gain][name]], view.weights)


def recent_other(view: View, name: str) -> Replicates:
    """Attention on recent behaviours of another category (`Retrieval.recent_other`), over the candidates whose
    history holds a behaviour of their own category: elsewhere the share is a matter of recency alone."""
    pairs = zip(view.retrieved[name], view.same_category, strict=True)
    return candidate_means([np.where(same > 0, r.recent_other, np.nan) for r, same in pairs], view.weights)


def left_out(view: View, name: str) -> Replicates:
    """Share of same-category behaviours that are not retrieved although there was room."""
    return candidate_means(view.left_out[name], view.weights)


def estimated_closeness(view: View, name: str, measure: Measure) -> Replicates:
    """A measure of learned attention against mutual information, mean over target categories."""

    def statistic(learned: Array, information: Array) -> float:
        return mean_known(measure(information, learned))

    parts = zip(view.counts, view.training_weights, view.maps[name], strict=True)
    return np.stack([counts.replicates(weights, partial(statistic, learned)) for counts, weights, learned in parts])


def true_closeness(view: View, name: str, measure: Measure) -> Replicates:
    """The same against the true relevance of each world (W, 1); NaN where there is none."""
    pairs = zip(view.true_maps, view.maps[name], strict=True)
    return np.array([[np.nan if t is None else mean_known(measure(t, m))] for t, m in pairs])


def truth_correlation(view: View, name: str) -> Replicates:
    """Rank correlation of learned attention with relevance: the true one of generated worlds, else mutual
    information."""
    return (true_closeness if view.of_worlds else estimated_closeness)(view, name, rank_correlation)


def category_relevance(chance: Array, information: Array) -> Array:
    """(T, T) relevance of behaviour category b for target category c: mutual information above the level of
    permuted labels, mean over positions. The level depends on both categories' frequencies, which would pass
    for structure."""
    return (information - chance).mean(2)


def enough_categories(view: View) -> bool:
    """Whether there are enough target categories to speak of the relevance between them."""
    return min(len(counts.categories) for counts in view.priors) >= LEAST_CATEGORIES


def relevance_symmetry(view: View) -> Interval:
    """Rank correlation of the relevance between categories with its transpose."""

    def statistic(chance: Array, information: Array) -> float:
        return symmetry(category_relevance(chance, information))

    pairs = zip(view.priors, view.training_weights, strict=True)
    return interval(np.stack([c.replicates(weights, partial(statistic, c.chance())) for c, weights in pairs]))


def own_category_first(view: View) -> Interval:
    """Share of target categories whose most relevant behaviour category is their own, less chance.

    Over worlds by Student's t; on one log by Wilson's interval over the categories, of the mean share over seeds.
    """
    shares = np.array([own_first(relevance) for relevance in view.prior_relevance])
    numbers = np.array([len(counts.categories) for counts in view.priors])
    if view.of_worlds:
        return interval((shares - 1 / numbers)[:, None])
    found, chance = wilson(float(shares.mean()), round(float(numbers.mean()))), float((1 / numbers).mean())
    low, high = found.low - chance, found.high - chance
    return replace(found, estimate=found.estimate - chance, low=low, high=high, seeds=len(shares))
