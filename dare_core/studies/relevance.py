"""What is relevant: behaviours by position (claim A1; paper, figure 8a), the true relevance of generated worlds, and
the relevance between categories (S1; section 3.4). Statistics are replicates by seed and group of users
(`dare_core.evaluation.intervals`)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from dare_core.data.generated import world_of
from dare_core.data.logs import Log
from dare_core.data.samples import Samples
from dare_core.data.worlds import true_relevance
from dare_core.evaluation.intervals import Interval, Replicates, interval, wilson
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import RelevanceCounts, user_weights
from dare_core.evaluation.retrieval import own_first, symmetry
from dare_core.studies.experiment import Experiment

LEAST_CATEGORIES = 3
"""Target categories below which nothing is said about the relevance between categories."""


def replicates_of(
    experiment: Experiment, relevance: Sequence[RelevanceCounts], statistics: Sequence[Callable[[Array], float]]
) -> Replicates:
    """(S, 1 + G) a statistic of each seed's mutual information (T, T, P), of all users and without each group of
    them."""
    rows = []
    for seed, counts, statistic in zip(experiment.seeds, relevance, statistics, strict=True):
        train = experiment.samples(seed)["train"]
        rows.append(counts.replicates(user_weights(train, experiment.groups(train)), statistic))
    return np.stack(rows)


def same_minus_other(information: Array, positions: int = 10) -> float:
    """Mean information (T, T, P) of same-category behaviours minus that of other categories, in thousandths of a bit,
    at the newest positions; NaN for one category. What counts show by chance is in both, and cancels."""
    recent = information[:, :, :positions].mean(2)
    same = np.eye(len(recent), dtype=bool)
    return float(1e3 * (recent[same].mean() - recent[~same].mean())) if len(recent) > 1 else float("nan")


def decay_slope(information: Array) -> float:
    """Slope of the mean same-category information (T, T, P) on ln(position), relative to its mean over positions;
    negative where relevance decays with position, NaN where there is nothing to decay."""
    same = np.einsum("iip->p", information) / len(information)
    x = np.log(np.arange(1, len(same) + 1))
    mean = same.mean()
    return float(np.polyfit(x, same / mean, 1)[0]) if mean > 0 and len(same) > 1 else float("nan")


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


def category_relevance(chance: Array, information: Array) -> Array:
    """(T, T) relevance of behaviour category b for target category c: mutual information above the level of
    permuted labels, mean over positions. The level depends on both categories' frequencies, which would pass
    for structure."""
    return (information - chance).mean(2)


def enough_categories(relevance: Sequence[Array]) -> bool:
    """Whether every map of relevance (T, T) has enough categories to speak of the relevance between them."""
    return min(len(each) for each in relevance) >= LEAST_CATEGORIES


def relevance_symmetry(experiment: Experiment, priors: Sequence[RelevanceCounts]) -> Interval:
    """Rank correlation of the relevance between categories with its transpose."""

    def statistic(chance: Array, information: Array) -> float:
        return symmetry(category_relevance(chance, information))

    return interval(replicates_of(experiment, priors, [partial(statistic, counts.chance()) for counts in priors]))


def own_category_first(experiment: Experiment, relevance: Sequence[Array]) -> Interval:
    """Share of target categories whose most relevant behaviour category is their own, less chance.

    `relevance` (T, T) per seed. Over worlds by Student's t; on one log by Wilson's interval over the categories, of
    the mean share over seeds.
    """
    shares = np.array([own_first(each) for each in relevance])
    numbers = np.array([len(each) for each in relevance])
    if experiment.of_worlds:
        return interval((shares - 1 / numbers)[:, None])
    found, chance = wilson(float(shares.mean()), round(float(numbers.mean()))), float((1 / numbers).mean())
    low, high = found.low - chance, found.high - chance
    return replace(found, estimate=found.estimate - chance, low=low, high=high, seeds=len(shares))
