"""Gradient dominance and conflict: claims G1 and G2 (paper, section 2.2, figures 2 and 3)."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dare_core.evaluation.intervals import Interval, interval, ratio_interval
from dare_core.evaluation.metrics import Array
from dare_core.studies import settings
from dare_core.studies.experiment import Experiment
from dare_core.training.gradients import GradientRecord

FIRST = 100
"""Steps over which the paper averages the norms."""
PUBLISHED = "published"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    PUBLISHED: {"official": ("initialise_all",), "batch_size": 2_048},
    "own start": {"batch_size": 2_048},
    "recipe": {},
}
"""`published`: every parameter but biases starts at N(0, 0.01), 2,048 samples per step: the claims are judged here.
`own start`: BatchNorm scales and PReLU slopes start at their layers' own values. `recipe`: as all other chapters
train."""


Config = settings.GradientsConfig


def recorded_gradients(experiment: Experiment, model: str, setting: str) -> list[GradientRecord]:
    """The gradient statistics of a model's trainings at one of `SETTINGS`, one record per seed."""
    runs = experiment.runs_at(model, record_gradients=True, **SETTINGS[setting])
    return [run.gradients for run in runs if run.gradients is not None]


def curves(records: Sequence[GradientRecord], name: str, field: str = "category") -> Array:
    """(S, T) a statistic at each of T training steps, per seed; as many steps as the shortest training has."""
    values = [record.of(name, field) for record in records]
    return np.stack([line[: min(map(len, values))] for line in values])


def norm_ratio(records: Sequence[GradientRecord], field: str, window: slice) -> Interval:
    """Mean norm of a row's gradient from representation over that from attention, as a ratio over seeds.

    `field` names the table (item, category, position), `window` the training steps.
    """
    representation, attention = (
        np.array([[record.of(f"{module}_norm", field)[window].mean()] for record in records])
        for module in ("representation", "attention")
    )
    return ratio_interval(representation, attention)


def negative_steps(mean_cosine: Array) -> float:
    """Share of steps whose mean cosine is negative: the published statistic."""
    known = mean_cosine[np.isfinite(mean_cosine)]
    return float((known < 0).mean()) if len(known) else float("nan")


def negative_share(records: Sequence[GradientRecord], field: str, window: slice) -> Interval:
    """Share of steps with a negative mean cosine, over seeds."""
    return interval(np.array([[negative_steps(record.of("mean_cosine", field)[window])] for record in records]))


def negative_rows(records: Sequence[GradientRecord], field: str, window: slice) -> float:
    """Share of rows with a negative cosine, mean over steps and seeds; NaN where no row has both gradients."""
    shares = np.concatenate([record.of("negative_share", field)[window] for record in records])
    return float(shares[np.isfinite(shares)].mean()) if np.isfinite(shares).any() else float("nan")
