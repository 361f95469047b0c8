"""Convergence: claim C1 (paper, section 4.5, figures 11a and 11b), and the test scores beside the rules."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from pydantic import Field

from dare_core.intervals import Draws, Interval, from_resamples
from dare_core.metrics import Array, auc
from dare_core.present import Shown, colour, figure, style, table
from dare_core.rules import RULES, rule_features
from dare_core.runs import Run, RunStore
from dare_core.samples import training_counts
from dare_core.studies.common import Experiment, Record, StudyConfig
from dare_core.studies.scores import score_rows

PAPER_LEVEL = 0.9
REFERENCE, CLAIMED = "TWIN", "DARE"


class Config(StudyConfig):
    """Parameters of the Convergence chapter."""

    models: str = Field("DARE,TWIN,DIN", description="models to train; C1 needs DARE and TWIN")


@dataclass
class View:
    """One log with its runs."""

    experiment: Experiment
    best_rule: str
    rule_auc: float  # of the best rule on the validation samples, mean over seeds


@dataclass
class Result:
    """Everything that the chapter shows."""

    record: Record
    views: list[View]


def accuracy_curves(run: Run, draws: Draws) -> Array:
    """(B + 1, V) validation accuracy at each line of the history: as it is, then under each draw of users."""
    predicted = run.validation_probability > 0.5
    correct = predicted.astype(float)
    correct[:, :, 1:] = ~predicted[:, :, 1:]
    kept = ~np.isnan(run.validation_probability[0, :, 0])  # the published code leaves the last batch out
    by_user = correct.mean(2)[:, kept]  # (V, H)
    weights = np.concatenate([np.ones((1, len(kept))), draws.users])[:, kept]
    return weights @ by_user.T / weights.sum(1, keepdims=True)


def iterations_to(curves: Array, steps: Array, level: Array) -> Array:
    """(B,) first iteration at which each curve (B, V) reaches its level (B,), linear between validations;
    infinite where it never does."""
    reached = curves >= level[:, None]
    first = reached.argmax(1)
    lines = np.arange(len(curves))
    before = np.maximum(first - 1, 0)
    rise = curves[lines, first] - curves[lines, before]
    part = np.where(rise > 0, (level - curves[lines, before]) / np.where(rise > 0, rise, 1), 1.0)
    at = np.where(first == 0, steps[0], steps[before] + part.clip(0, 1) * (steps[first] - steps[before]))
    return np.where(reached.any(1), at, np.inf)


def speedup(experiment: Experiment, draws: Draws) -> tuple[Interval, int]:
    """Iterations of TWIN to its best validation accuracy, over DARE's to the same level.

    Where DARE never reaches it, the ratio is 0: as if it took for ever. The number of seeds concerned is given
    too. The interval is over users and seeds.
    """
    ratios = []
    unreached = 0
    for seed in experiment.seeds:
        reference, claimed = experiment.runs[REFERENCE, seed], experiment.runs[CLAIMED, seed]
        steps = np.array([line.step for line in reference.history], float)
        curve = accuracy_curves(reference, draws)
        level = curve.max(1)
        own = iterations_to(curve, steps, level)
        other_steps = np.array([line.step for line in claimed.history], float)
        other = iterations_to(accuracy_curves(claimed, draws), other_steps, level)
        unreached += int(np.isinf(other[0]))
        ratios.append(own / other)
    values = np.stack(ratios)  # (S, B + 1)
    interval = from_resamples(float(values[:, 0].mean()), draws.mean_over_seeds(values[:, 1:]), len(values))
    return interval, unreached


def level_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """Iterations of every model to TWIN's best accuracy and to the paper's level, a seed each."""
    rows = []
    for seed in experiment.seeds:
        reference = experiment.runs.get((REFERENCE, seed))
        best = max(line.accuracy for line in reference.history) if reference else np.nan
        for (model, of), run in experiment.runs.items():
            if of != seed:
                continue
            steps = np.array([line.step for line in run.history], float)
            curve = np.array([[line.accuracy for line in run.history]])
            found = [float(iterations_to(curve, steps, np.array([level]))[0]) for level in (best, PAPER_LEVEL)]
            rows.append(
                {
                    "log": experiment.name,
                    "model": model,
                    "seed": seed,
                    "best accuracy": float(curve.max()),
                    "iterations to TWIN's best": found[0] if np.isfinite(found[0]) else "not reached",
                    "iterations to 90 %": found[1] if np.isfinite(found[1]) else "not reached",
                    "iterations in all": int(steps[-1]),
                }
            )
    return rows


def best_validation_rule(experiment: Experiment) -> tuple[str, float]:
    """The rule of best validation AUC (mean over seeds): the level shown with the learning curves."""
    counts = training_counts(experiment.log)
    totals: dict[str, list[float]] = {}
    for seed in experiment.seeds:
        splits = experiment.samples(seed)
        features = rule_features(splits["validation"], counts)
        rules = {name: rule(features) for name, rule in RULES.items()}
        for name in RULES:
            values = rules[name]
            totals.setdefault(name, []).append(auc(splits["validation"].labels, values))
    best = max(totals, key=lambda name: float(np.mean(totals[name])))
    return best, float(np.mean(totals[best]))


def run(config: Config) -> Result:
    """Train the models on every log and judge C1."""
    record = Record("convergence", config, RunStore())
    views = []
    curves: list[dict[str, Any]] = []
    scores: list[dict[str, Any]] = []
    levels: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        experiment.train(config.model_names)
        if {REFERENCE, CLAIMED} <= set(config.model_names):
            validation = experiment.samples(1)["validation"]
            interval, unreached = speedup(experiment, Draws.make(len(validation), config.seeds))
            note = f"DARE did not reach the level with {unreached} of {config.seeds} seeds" if unreached else ""
            record.judge("C1", "speedup", interval, experiment, note)
        levels += level_rows(experiment)
        scores += score_rows(
            experiment,
            {m: experiment.test_scores(m) for m in config.model_names} | experiment.rule_test_scores(),
        )
        curves += curve_rows(experiment)
        views.append(View(experiment, *best_validation_rule(experiment)))
    record.tables |= {"curves": curves, "scores": scores, "iterations": levels}
    record.write()
    return Result(record, views)


def curve_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """The learning curves, a line each validation."""
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
            steps = [line.step for line in runs[0].history]
            for axis, name in zip(lines, ("accuracy", "auc"), strict=True):
                values = np.array([[getattr(line, name) for line in r.history] for r in runs])
                axis.plot(steps, values.mean(0), color=colour(model), label=model, marker="o", ms=2.5)
                axis.fill_between(steps, values.min(0), values.max(0), color=colour(model), alpha=0.2, lw=0)
            best = np.mean([r.best.auc for r in runs])
            parts.append(f"{model} on {experiment.name} reaches a validation AUC of {best:.3f}")
        lines[1].axhline(view.rule_auc, color=colour("rule"), ls="--", label=f"rule: {view.best_rule}")
        lines[0].set(title=experiment.name, xlabel="iteration", ylabel="validation accuracy")
        lines[1].set(title=experiment.name, xlabel="iteration", ylabel="validation AUC")
        lines[1].legend(fontsize=8)
    return figure(drawn, "Validation by iteration over both epochs, band over seeds. " + "; ".join(parts) + ".")


def show_scores(result: Result) -> Shown:
    """Test scores of models and rules."""
    return table(result.record.tables["scores"], "Test scores of models and of rules without learning")


def show_iterations(result: Result) -> Shown:
    """Iterations to a level."""
    return table(result.record.tables["iterations"], "Iterations to a level of validation accuracy")
