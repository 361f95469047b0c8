"""Convergence: claim C1 (paper, section 4.5, figures 11a and 11b), and the test scores beside the rules."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from pydantic import Field

from dare_core.data.samples import Samples
from dare_core.evaluation.intervals import UNKNOWN, Interval, Replicates, ratio_interval
from dare_core.evaluation.metrics import Array, resampled_auc
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.studies.common import StudyConfig
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.scores import score_rows
from dare_core.training.runs import Run, RunStore

PAPER_ACCURACY = 0.9
SHARES = (0.5, 0.6, 0.7, 0.8, 0.9)
"""The levels of validation AUC, as shares of the best rule's way from 1/2: fixed, and the same for both models."""
TRIVIAL_AUC = 0.5


class Config(StudyConfig):
    """Parameters of the Convergence chapter."""

    models: str = Field("DARE,TWIN,DIN", description="models to train; C1 needs DARE and TWIN")


@dataclass
class View:
    """One log with its runs."""

    experiment: Experiment
    rule: str
    rule_auc: float  # of the best rule on the validation samples, mean over seeds


@dataclass
class Result:
    """Everything that the chapter shows."""

    record: Record
    views: list[View]


Curves = Callable[[Run, Samples, Array], Array]
"""(1 + G, V) validation curves of a run under weights (1 + G, H) of the targets."""


def auc_curves(run: Run, samples: Samples, weights: Array) -> Array:
    """Validation AUC at each line of the history."""
    kept = ~np.isnan(run.validation_probability[0, :, 0])  # the published code leaves the last batch out
    labels = samples.labels[kept].ravel()
    by_sample = np.repeat(weights[:, kept], samples.items.shape[1], axis=1)
    lines = [resampled_auc(labels, values[kept].ravel(), by_sample) for values in run.validation_probability]
    return np.stack(lines, 1)


def accuracy_curves(run: Run, samples: Samples, weights: Array) -> Array:
    """Validation accuracy at each line of the history."""
    kept = ~np.isnan(run.validation_probability[0, :, 0])
    predicted = run.validation_probability[:, kept] > 0.5
    correct = (predicted == (samples.labels[kept] > 0)).mean(2)  # (V, H)
    return weights[:, kept] @ correct.T / weights[:, kept].sum(1, keepdims=True)


def iterations_to(curves: Array, steps: Array, level: Array, start: float) -> Array:
    """(B,) first iteration at which each curve (B, V) reaches its level (B,), linear between validations and from
    `start` before the first step; the end of training where it never does, which is alike for all models."""
    curves = np.concatenate([np.full((len(curves), 1), start), curves], 1)
    steps = np.concatenate([[0.0], steps])
    reached = curves >= level[:, None]
    first = np.maximum(reached.argmax(1), 1)
    lines = np.arange(len(curves))
    before, after = curves[lines, first - 1], curves[lines, first]
    rise = after - before
    part = np.where(rise > 0, (level - before) / np.where(rise > 0, rise, 1), 1.0).clip(0, 1)
    at = steps[first - 1] + part * (steps[first] - steps[first - 1])
    return np.where(reached.any(1), np.maximum(at, 1.0), steps[-1])


def rule_levels(experiment: Experiment, name: str) -> Replicates:
    """(S, 1 + G) validation AUC of a rule."""
    return experiment.auc_replicates(experiment.rule_scores("validation")[name], split="validation")


def iterations(experiment: Experiment, runs: list[Run], curves: Curves, levels: Replicates, start: float) -> Replicates:
    """(S, 1 + G) iterations of a model to a level, of all users and without each group of them."""
    rows = []
    for seed, run, level in zip(experiment.seeds, runs, levels, strict=True):
        samples = experiment.samples(seed)["validation"]
        steps = np.array([line.step for line in run.history], float)
        drawn = curves(run, samples, experiment.weights(samples))
        rows.append(iterations_to(drawn, steps, level, start))
    return np.stack(rows)


def speedup(experiment: Experiment, reference: list[Run], claimed: list[Run], rule: str, share: float) -> Interval:
    """Iterations of one list of runs over those of another to 1/2 + share (rule's AUC - 1/2), paired by seed.

    Unknown where no run reaches its level: two that never arrive are not equally fast.
    """
    levels = TRIVIAL_AUC + share * (rule_levels(experiment, rule) - TRIVIAL_AUC)
    best = np.array([[run.best.auc for run in runs] for runs in (reference, claimed)])
    if not (best >= levels[:, 0]).any():
        return UNKNOWN
    first, second = (
        iterations(experiment, runs, auc_curves, levels, TRIVIAL_AUC) for runs in (reference, claimed)
    )
    return ratio_interval(first, second)


def accuracy_speedup(experiment: Experiment, reference: list[Run], claimed: list[Run]) -> tuple[Interval | None, str]:
    """The same to the paper's accuracy of 90 %; None, with the reason, where no model reaches it."""
    best = max(line.accuracy for run in (*reference, *claimed) for line in run.history)
    if best < PAPER_ACCURACY:
        return None, f"out of reach: best validation accuracy {best:.2f}"
    samples = experiment.samples(1)["validation"]
    levels = np.full((len(reference), len(experiment.weights(samples))), PAPER_ACCURACY)
    trivial = 1 - 1 / samples.items.shape[1]
    first, second = (iterations(experiment, runs, accuracy_curves, levels, trivial) for runs in (reference, claimed))
    return ratio_interval(first, second), ""


def judge(record: Record, experiment: Experiment) -> None:
    """Add the rows of C1."""
    reference, claimed = ([experiment.runs[m, seed] for seed in experiment.seeds] for m in (REFERENCE, CLAIMED))
    rule = experiment.competence.rule
    for share in SHARES:
        measured = speedup(experiment, reference, claimed, rule, share)
        note = f"level of the rule: {rule}" if measured is not UNKNOWN else "no model reaches the level"
        record.judge("C1", f"speedup_{round(100 * share)}", measured, experiment, note)
    by_accuracy, reason = accuracy_speedup(experiment, reference, claimed)
    record.judge("C1", "speedup_accuracy_90", by_accuracy, experiment, reason)


def level_rows(experiment: Experiment, rule: str) -> list[dict[str, Any]]:
    """Iterations of every model to each level of validation AUC, one row per model and seed."""
    levels = rule_levels(experiment, rule)
    rows = []
    for model in dict.fromkeys(name for name, _ in experiment.runs):
        runs = [experiment.runs[model, seed] for seed in experiment.seeds]
        found = {
            share: iterations(experiment, runs, auc_curves, TRIVIAL_AUC + share * (levels - TRIVIAL_AUC), TRIVIAL_AUC)
            for share in SHARES
        }
        for at, (seed, run) in enumerate(zip(experiment.seeds, runs, strict=True)):
            best = max(line.auc for line in run.history)
            row: dict[str, Any] = {"log": experiment.name, "model": model, "seed": seed, "best AUC": best}
            for share, values in found.items():
                level = TRIVIAL_AUC + share * (levels[at, 0] - TRIVIAL_AUC)
                row[f"iterations to {share}"] = float(values[at, 0]) if best >= level else None
            rows.append(row | {"iterations in all": run.history[-1].step})
    return rows


def run(config: Config) -> Result:
    """Train the models on every log and judge C1."""
    record = Record("convergence", config, RunStore())
    views = []
    tables: dict[str, list[dict[str, Any]]] = {"curves": [], "scores": [], "iterations": []}
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        if {REFERENCE, CLAIMED} <= set(config.model_names):
            judge(record, experiment)
        rule = experiment.competence.rule
        models = {model: experiment.test_scores(model) for model in config.model_names}
        tables["iterations"] += level_rows(experiment, rule)
        tables["scores"] += score_rows(experiment, models | experiment.rule_scores())
        tables["curves"] += curve_rows(experiment)
        views.append(View(experiment, rule, float(rule_levels(experiment, rule)[:, 0].mean())))
    record.tables |= tables
    record.write()
    return Result(record, views)


def curve_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """The learning curves, one row per validation."""
    return [
        {
            "log": experiment.name,
            "model": model,
            "seed": seed,
            "iteration": line.step,
            "training loss": line.train_loss,
            "validation accuracy": line.accuracy,
            "validation AUC": line.auc,
            "validation logloss": line.logloss,
        }
        for (model, seed), trained in experiment.runs.items()
        for line in trained.history
    ]


def show_curves(result: Result) -> Shown:
    """Figure 11a-b: validation accuracy and AUC by iteration, with the best rule's level."""
    style()
    drawn, axes = plt.subplots(len(result.views), 2, figsize=(9.5, 3.4 * len(result.views)), squeeze=False)
    parts = []
    for lines, view in zip(axes, result.views, strict=True):
        experiment = view.experiment
        for model in dict.fromkeys(name for name, _ in experiment.runs):
            runs = [experiment.runs[model, seed] for seed in experiment.seeds]
            shortest = min(len(run.history) for run in runs)
            steps = [line.step for line in runs[0].history][:shortest]
            for axis, name in zip(lines, ("accuracy", "auc"), strict=True):
                values = np.array([[getattr(line, name) for line in r.history[:shortest]] for r in runs])
                axis.plot(steps, values.mean(0), color=colour(model), label=model, marker="o", ms=2.5)
                axis.fill_between(steps, values.min(0), values.max(0), color=colour(model), alpha=0.2, lw=0)
            best = np.mean([r.best.auc for r in runs])
            parts.append(f"{model} on {experiment.name} reaches a validation AUC of {best:.3f}")
        lines[1].axhline(view.rule_auc, color=colour("rule"), ls="--", label=f"rule: {view.rule}")
        level = TRIVIAL_AUC + 0.7 * (view.rule_auc - TRIVIAL_AUC)
        lines[1].axhline(level, color=colour("rule"), ls=":", label="level of C1")
        lines[0].set(title=experiment.name, xlabel="iteration", ylabel="validation accuracy")
        lines[1].set(title=experiment.name, xlabel="iteration", ylabel="validation AUC")
        lines[1].legend(fontsize=8)
    return figure(drawn, "Validation by iteration over both epochs, band over seeds. " + "; ".join(parts) + ".")


def show_scores(result: Result) -> Shown:
    """Test scores of models and rules."""
    return table(result.record.tables["scores"], "Test scores of models and of rules without learning")


def show_iterations(result: Result) -> Shown:
    """Iterations to a level."""
    caption = "Iterations to a validation AUC of 1/2 + f (rule's AUC - 1/2), by f"
    return table(result.record.tables["iterations"], caption)
