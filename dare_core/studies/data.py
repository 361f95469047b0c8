"""Data: relevance of behaviours by position, for claim A1 (paper, figure 8a)."""

from collections.abc import Callable, Sequence

import numpy as np

from dare_core.evaluation.intervals import Replicates
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.relevance import RelevanceCounts, relevance_counts, user_weights
from dare_core.studies import settings
from dare_core.studies.experiment import Experiment

Config = settings.DataConfig


def relevance_of(experiment: Experiment, categories: int, positions: int) -> list[RelevanceCounts]:
    """Counts of behaviours and labels over the training samples of a log, one per seed."""
    return [relevance_counts(experiment.samples(seed)["train"], categories, positions) for seed in experiment.seeds]


def replicates_of(
    experiment: Experiment, relevance: Sequence[RelevanceCounts], statistic: Callable[[Array], float]
) -> Replicates:
    """(S, 1 + G) a statistic of the mutual information (T, T, P), of all users and without each group of them."""
    rows = []
    for seed, counts in zip(experiment.seeds, relevance, strict=True):
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


def information_by_position(relevance: Sequence[RelevanceCounts]) -> Array:
    """(3, P) mutual information in bits by position: of same-category behaviours, of those of other categories, and
    what independent variables would show. Means over seeds and target categories, which may vary with the seed."""
    curves = []
    for counts in relevance:
        information = counts.mutual_information()
        t = len(information)
        same = np.einsum("iip->p", information)
        other = (information.sum((0, 1)) - same) / max(t * (t - 1), 1)
        curves.append((same / t, other, np.full(len(same), counts.floor().mean())))
    return np.mean(curves, 0)  # type: ignore[no-any-return]
