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
