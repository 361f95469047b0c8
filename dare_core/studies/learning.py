"""How models learn: gradient dominance and conflict (claims G1 and G2; paper, section 2.2, figures 2 and 3), and
iterations until a level of validation AUC is reached (C1; section 4.5, figures 11a and 11b)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dare_core.data.samples import Samples
from dare_core.evaluation.intervals import UNKNOWN, Interval, Replicates, interval, ratio_interval
from dare_core.evaluation.metrics import Array, resampled_auc
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import GRADIENT_SETTINGS
from dare_core.training.gradients import GradientRecord
from dare_core.training.runs import Run

FIRST = 100
"""Steps over which the paper averages the norms of gradients."""
PAPER_ACCURACY = 0.9
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The levels of validation AUC, as shares of the best rule's way from 1/2: fixed, and the same for both models."""
TRIVIAL_AUC = 0.5

Curves = Callable[[Run, Samples, Array], Array]
"""From a run, its validation samples and weights (1 + G, H) of the targets to validation curves (1 + G, V)."""


def recorded_gradients(experiment: Experiment, model: str, setting: str) -> list[GradientRecord]:
    """The gradient statistics of a model's trainings at one of `GRADIENT_SETTINGS`, one record per seed."""
    runs = experiment.runs_at(model, record_gradients=True, **GRADIENT_SETTINGS[setting])
    return [run.gradients for run in runs if run.gradients is not None]


def by_step(records: Sequence[GradientRecord], name: str, field: str = "category") -> Array:
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


def auc_curves(run: Run, samples: Samples, weights: Array) -> Array:
    """(1 + G, V) validation AUC at each of V validations, under weights (1 + G, H) of the targets."""
    kept = ~np.isnan(run.validation_probability[0, :, 0])  # the published code leaves the last batch out
    labels = samples.labels[kept].ravel()
    by_sample = np.repeat(weights[:, kept], samples.items.shape[1], axis=1)
    lines = [resampled_auc(labels, values[kept].ravel(), by_sample) for values in run.validation_probability]
    return np.stack(lines, 1)


def accuracy_curves(run: Run, samples: Samples, weights: Array) -> Array:
    """(1 + G, V) validation accuracy at each of V validations, under weights (1 + G, H) of the targets."""
    kept = ~np.isnan(run.validation_probability[0, :, 0])
    predicted = run.validation_probability[:, kept] > 0.5
    correct = (predicted == (samples.labels[kept] > 0)).mean(2)  # (V, H)
    return weights[:, kept] @ correct.T / weights[:, kept].sum(1, keepdims=True)


def iterations_to(curves: Array, steps: Array, level: Array) -> Array:
    """(B,) iteration at which each curve (B, V) reaches its level (B,), linear between validations; that of the first
    validation where the level is passed before it, and the end of training where it is never reached: alike for all
    models."""
    reached = curves >= level[:, None]
    first = reached.argmax(1)
    lines, before = np.arange(len(curves)), np.maximum(first - 1, 0)
    rise = curves[lines, first] - curves[lines, before]
    part = np.where(rise > 0, (level - curves[lines, before]) / np.where(rise > 0, rise, 1), 1.0).clip(0, 1)
    at = steps[before] + part * (steps[first] - steps[before])
    return np.where(reached.any(1), at, steps[-1])


def auc_levels(experiment: Experiment, share: float) -> Replicates:
    """(S, 1 + G) the level 1/2 + share (AUC - 1/2) of validation AUC, from that of the best rule without learning."""
    rule = experiment.rule_scores("validation")[experiment.competence.rule]
    return TRIVIAL_AUC + share * (experiment.auc_replicates(rule, split="validation") - TRIVIAL_AUC)


def iterations(experiment: Experiment, runs: list[Run], levels: Replicates, curves: Curves = auc_curves) -> Replicates:
    """(S, 1 + G) iterations of a model to levels of the same shape, of all users and without each group of them."""
    rows = []
    for seed, run, level in zip(experiment.seeds, runs, levels, strict=True):
        samples = experiment.samples(seed)["validation"]
        steps = np.array([line.step for line in run.history], float)
        rows.append(iterations_to(curves(run, samples, experiment.weights(samples)), steps, level))
    return np.stack(rows)


class Speedup(NamedTuple):
    """Iterations of one model over those of another; why there is no ratio, or what limits it; and why it is not
    judged."""

    ratio: Interval | None
    note: str = ""
    blocked: str = ""


def speedup_of(slow: Replicates, fast: Replicates, first: int) -> Speedup:
    """The ratio of two models' iterations, paired by seed; `first`: the step of the first validation.

    A level that is passed before it is known to be passed by then, and no more: the ratio is nearer to 1 than the
    truth. It is judged all the same where its interval excludes 1.
    """
    ratio = ratio_interval(slow, fast)
    early = int(((slow[:, 0] <= first) | (fast[:, 0] <= first)).sum())
    if not early:
        return Speedup(ratio)
    note = f"nearer to 1 than the truth: with {early} of {len(slow)} seeds the level is passed before step {first}"
    return Speedup(ratio, note, "" if ratio.low > 1 or ratio.high < 1 else "passed before the first validation")


def speedup(experiment: Experiment, reference: list[Run], claimed: list[Run], share: float) -> Speedup:
    """Iterations of the reference model over those of the claimed one to a level of `auc_levels`, paired by seed.

    Not judged where no run reaches its level: two that never arrive are not equally fast.
    """
    levels = auc_levels(experiment, share)
    best = np.array([[run.best.auc for run in runs] for runs in (reference, claimed)])
    if not (best >= levels[:, 0]).any():
        return Speedup(UNKNOWN, "no model reaches the level")
    slow, fast = (iterations(experiment, runs, levels) for runs in (reference, claimed))
    return speedup_of(slow, fast, claimed[0].history[0].step)


def accuracy_speedup(experiment: Experiment, reference: list[Run], claimed: list[Run]) -> Speedup:
    """The same to the paper's accuracy of 90 %; without a ratio where no model reaches it."""
    best = max(line.accuracy for run in (*reference, *claimed) for line in run.history)
    if best < PAPER_ACCURACY:
        return Speedup(None, f"out of reach: best validation accuracy {best:.2f}")
    weights = experiment.weights(experiment.samples(1)["validation"])
    levels = np.full((len(reference), len(weights)), PAPER_ACCURACY)
    slow, fast = (iterations(experiment, runs, levels, accuracy_curves) for runs in (reference, claimed))
    return speedup_of(slow, fast, claimed[0].history[0].step)
