"""Gradient dominance and conflict: claims G1 and G2 (paper, section 2.2, figures 2 and 3)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from pydantic import Field, field_validator

from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval, interval, ratio_interval
from dare_core.evaluation.metrics import Array
from dare_core.models.zoo import model_spec
from dare_core.report.show import PALETTE, Shown, figure, style, table
from dare_core.studies.common import StudyConfig
from dare_core.studies.experiment import FEWEST_STEPS, Experiment, Record
from dare_core.studies.scores import columns
from dare_core.training.gradients import BINS, GradientRecord
from dare_core.training.runs import RunStore

FIRST = 100
"""Steps of the published mean norms."""
PUBLISHED = "published"
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    PUBLISHED: {"official": ("initialise_all",), "batch_size": 2_048},
    "own start": {"batch_size": 2_048},
    "recipe": {},
}
"""`published`: every parameter but biases starts at N(0, 0.01), 2,048 samples per step: the claims are judged here.
`own start`: BatchNorm scales and PReLU slopes start at their layers' own values. `recipe`: as all other chapters
train."""


class Config(StudyConfig):
    """Parameters of the gradients chapter."""

    models: str = Field("TWIN", description="models with shared tables")
    settings: str = Field("published,own start", description="published (judged), own start, recipe")

    @field_validator("settings")
    @classmethod
    def _known(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",")]
        if not set(names) <= set(SETTINGS):
            raise ValueError(f"expects some of {', '.join(SETTINGS)}, separated by commas")
        return ",".join(dict.fromkeys(names))


@dataclass
class View:
    """One log, model and setting."""

    experiment: Experiment
    model: str
    setting: str
    records: list[GradientRecord]  # one per seed

    @property
    def steps(self) -> int:
        """Recorded steps."""
        return min(len(record.of("rows", "category")) for record in self.records)


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]


def norm_ratio(records: list[GradientRecord], field: str, window: slice) -> Interval:
    """Mean norm of representation's row gradients over attention's, as a ratio over seeds."""
    representation, attention = (
        np.array([[record.of(f"{module}_norm", field)[window].mean()] for record in records])
        for module in ("representation", "attention")
    )
    return ratio_interval(representation, attention)


def negative_steps(mean_cosine: Array) -> float:
    """Share of steps whose mean cosine is negative: the published statistic."""
    known = mean_cosine[np.isfinite(mean_cosine)]
    return float((known < 0).mean()) if len(known) else float("nan")


def negative_share(records: list[GradientRecord], field: str, window: slice) -> Interval:
    """Share of steps with a negative mean cosine, over seeds."""
    return interval(np.array([[negative_steps(record.of("mean_cosine", field)[window])] for record in records]))


def negative_rows(records: list[GradientRecord], field: str, window: slice) -> float:
    """Share of rows with a negative cosine, mean over steps and seeds; NaN where no row has both gradients."""
    shares = np.concatenate([record.of("negative_share", field)[window] for record in records])
    return float(shares[np.isfinite(shares)].mean()) if np.isfinite(shares).any() else float("nan")


def statistic_rows(view: View) -> list[dict[str, Any]]:
    """Dominance and conflict by table and window."""
    rows = []
    for field in map(str, view.records[0].field):
        for label, window in ((f"first {FIRST}", slice(0, FIRST)), ("all", slice(None))):
            ratio, steps = norm_ratio(view.records, field, window), negative_share(view.records, field, window)
            norms = {
                f"norm, {module}": float(np.mean([r.of(f"{module}_norm", field)[window].mean() for r in view.records]))
                for module in ("representation", "attention")
            }
            rows.append(
                {"log": view.experiment.name, "model": view.model, "setting": view.setting, "table": field}
                | {"steps": label}
                | norms
                | columns("norm ratio", ratio.estimate, ratio.low, ratio.high)
                | columns("steps with negative mean cosine", steps.estimate, steps.low, steps.high)
                | {"rows with negative cosine": negative_rows(view.records, field, window)}
            )
    return rows


def judge(record: Record, view: View) -> None:
    """Add the rows of G1 and G2: category table, published start and batch."""
    blocked = f"{view.steps} of at least {FEWEST_STEPS} recorded steps" if view.steps < FEWEST_STEPS else ""
    ratio = norm_ratio(view.records, "category", slice(0, FIRST))
    share = negative_share(view.records, "category", slice(None))
    record.judge("G1", "norm_ratio", ratio, view.experiment, f"{view.steps} recorded steps", blocked=blocked)
    record.judge("G2", "negative_cosine_share", share, view.experiment, f"{view.steps} recorded steps", blocked=blocked)


def run(config: Config) -> Result:
    """Train with recorded gradients and judge G1 and G2 on the published statistics."""
    for model in config.model_names:
        if len(set(model_spec(model).assignment.values())) > 1:
            raise InputError(f"models: {model} shares no table between attention and representation; try TWIN.")
    record = Record("gradients", config, RunStore())
    result = Result(config, record, [])
    for name in config.log_names:
        experiment = record.use(name)
        for model in config.model_names:
            for setting in config.settings.split(","):
                runs = experiment.runs_at(model, record_gradients=True, **SETTINGS[setting])
                records = [run.gradients for run in runs if run.gradients is not None]
                view = View(experiment, model, setting, records)
                result.views.append(view)
                if setting == PUBLISHED and model == config.model_names[0]:
                    judge(record, view)
    record.tables["statistics"] = [row for view in result.views for row in statistic_rows(view)]
    record.tables["steps"] = [row for view in result.views for row in step_rows(view)]
    record.write()
    return result


def step_rows(view: View) -> list[dict[str, Any]]:
    """The curves of the figures: category table, mean over seeds."""
    names = ("attention_norm", "representation_norm", "mean_cosine", "negative_share", "table_cosine")
    means = {name: np.mean([r.of(name, "category")[: view.steps] for r in view.records], 0) for name in names}
    return [
        {
            "log": view.experiment.name,
            "model": view.model,
            "setting": view.setting,
            "step": step + 1,
            **{name: float(values[step]) for name, values in means.items()},
        }
        for step in range(len(means["mean_cosine"]))
    ]


def main_views(result: Result) -> list[View]:
    """The views at the published setting, or at the first one that was asked for."""
    first = PUBLISHED if PUBLISHED in result.config.settings.split(",") else result.views[0].setting
    return [view for view in result.views if view.setting == first]


def show_norms(result: Result) -> Shown:
    """Figure 2: mean norm of a row's gradient by module over training, category table."""
    style()
    views = main_views(result)
    drawn, axes = plt.subplots(1, len(views), figsize=(4.8 * len(views), 3.4), squeeze=False)
    parts = []
    for axis, view in zip(axes[0], views, strict=True):
        means = {}
        for module in ("attention", "representation"):
            curves = np.stack([r.of(f"{module}_norm", "category")[: view.steps] for r in view.records])
            steps = np.arange(1, curves.shape[1] + 1)
            axis.plot(steps, curves.mean(0), color=PALETTE[module], label=module)
            axis.fill_between(steps, curves.min(0), curves.max(0), color=PALETTE[module], alpha=0.25, lw=0)
            means[module] = curves[:, :FIRST].mean()
        axis.set(title=f"{view.model}, {view.experiment.name}", xlabel="iteration", yscale="log")
        axis.set_ylabel("mean norm of a row's gradient")
        axis.legend()
        parts.append(
            f"{view.experiment.name}: representation {means['representation']:.1e}, "
            f"attention {means['attention']:.1e} over the first iterations"
        )
    return figure(drawn, "Gradient norms by module, category table. " + "; ".join(parts) + ".")


def show_cosines(result: Result) -> Shown:
    """Figure 3: the published histogram (mean cosine of a step) beside row-wise cosines."""
    style()
    views = main_views(result)
    drawn, axes = plt.subplots(len(views), 2, figsize=(9, 3.2 * len(views)), squeeze=False)
    parts = []
    for (left, right), view in zip(axes, views, strict=True):
        steps = np.concatenate([r.of("mean_cosine", "category") for r in view.records])
        left.hist(steps, bins=BINS, color=PALETTE["attention"])
        left.axvline(0, color="k", lw=1)
        left.set(
            title=f"{view.experiment.name}: mean cosine of a step (published)",
            xlabel="cosine",
            ylabel="steps",
        )
        index = list(view.records[0].field).index("category")
        histogram = np.sum([r.cosine_histogram[index] for r in view.records], 0)
        right.bar(BINS[:-1], histogram, width=np.diff(BINS), align="edge", color=PALETTE["representation"])
        right.axvline(0, color="k", lw=1)
        right.set(title=f"{view.experiment.name}: cosine of each row", xlabel="cosine", ylabel="rows x steps")
        below = histogram[: len(histogram) // 2].sum() / histogram.sum()
        parts.append(
            f"{view.experiment.name}: {np.mean(steps < 0):.0%} of the steps have a negative mean, "
            f"{below:.0%} of row-wise cosines over training are negative"
        )
    return figure(drawn, "Histograms of cosines between the two gradients, category table. " + "; ".join(parts) + ".")


def show_statistics(result: Result) -> Shown:
    """Every table, window and setting."""
    return table(result.record.tables["statistics"], "Dominance and conflict by table, window and setting")
