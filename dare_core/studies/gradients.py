"""Gradient dominance and conflict: claims G1 and G2 (paper, section 2.2, figures 2 and 3)."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from pydantic import Field

from dare_core.errors import InputError
from dare_core.gradients import BINS, GradientRecord
from dare_core.intervals import RESAMPLES, Interval, from_resamples
from dare_core.metrics import Array
from dare_core.models import model_spec
from dare_core.present import PALETTE, Shown, figure, style, table
from dare_core.runs import RunStore
from dare_core.studies.common import Experiment, Record, StudyConfig


class Config(StudyConfig):
    """Parameters of the gradients chapter."""

    models: str = Field("TWIN", description="models with shared tables")
    first_steps: int = Field(100, ge=10, description="steps of the published statistic")
    other_scale: float = Field(0.1, gt=0, le=10, description="another standard deviation of initial weights")


@dataclass
class View:
    """One log, model and initial scale."""

    experiment: Experiment
    model: str
    initial_scale: float
    records: list[GradientRecord]  # a seed each


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]


def block_interval(series: list[list[Array]], statistic: Any, block: int = 10) -> Interval:
    """Interval of a statistic of step-wise series over seeds and over blocks of consecutive steps.

    `series`: for each seed, the arrays (S,) that the statistic takes. Steps follow one another, so blocks
    of them are drawn, not single steps; seeds are drawn first.
    """
    generator = np.random.default_rng(0)
    steps = len(series[0][0])
    blocks = max(1, steps // block)
    values = np.empty(RESAMPLES)
    for b in range(RESAMPLES):
        drawn = []
        for s in generator.integers(len(series), size=len(series)):
            starts = generator.integers(max(1, steps - block + 1), size=blocks)
            index = (starts[:, None] + np.arange(min(block, steps))).ravel()
            drawn.append(statistic(*(array[index] for array in series[s])))
        values[b] = np.mean(drawn)
    estimate = float(np.mean([statistic(*arrays) for arrays in series]))
    return from_resamples(estimate, values, len(series))


def norm_ratio(representation: Array, attention: Array) -> float:
    """Mean norm of representation's row gradients over attention's."""
    return float(representation.mean() / attention.mean())


def negative_steps(mean_cosine: Array) -> float:
    """Share of steps whose mean cosine is negative: the published statistic."""
    return float((mean_cosine[np.isfinite(mean_cosine)] < 0).mean())


def statistics(records: list[GradientRecord], field: str, window: slice) -> tuple[Interval, Interval, Interval]:
    """Norm ratio, share of steps with negative mean cosine, share of rows with negative cosine."""
    norms = [[r.of("representation_norm", field)[window], r.of("attention_norm", field)[window]] for r in records]
    cosines = [[r.of("mean_cosine", field)[window]] for r in records]
    rows = [[r.of("negative_share", field)[window]] for r in records]
    return (
        block_interval(norms, norm_ratio),
        block_interval(cosines, negative_steps),
        block_interval(rows, lambda share: float(np.nanmean(share))),
    )


def run(config: Config) -> Result:
    """Train with recorded gradients and judge G1 and G2 on the published statistics."""
    for model in config.model_names:
        if len(set(model_spec(model).assignment().values())) > 1:
            raise InputError(f"models: {model} shares no table between attention and representation; try TWIN.")
    record = Record("gradients", config, RunStore())
    first = slice(0, config.first_steps)
    views: list[View] = []
    rows: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        for model in config.model_names:
            for scale in (0.01, config.other_scale):
                experiment.train([model], record_gradients=True, initial_scale=scale)
                records = [experiment.runs[model, seed].gradients for seed in experiment.seeds]
                view = View(experiment, model, scale, [r for r in records if r is not None])
                views.append(view)
                for field in view.records[0].field:
                    for label, window in ((f"first {config.first_steps}", first), ("all", slice(None))):
                        ratio, steps, share = statistics(view.records, str(field), window)
                        rows.append(
                            {
                                "log": name,
                                "model": model,
                                "initial scale": scale,
                                "table": str(field),
                                "steps": label,
                                "norm ratio": ratio.estimate,
                                "ratio 95 %": f"[{ratio.low:.2f}, {ratio.high:.2f}]",
                                "steps with negative mean cosine": steps.estimate,
                                "steps 95 %": f"[{steps.low:.2f}, {steps.high:.2f}]",
                                "rows with negative cosine": share.estimate,
                                "rows 95 %": f"[{share.low:.2f}, {share.high:.2f}]",
                            }
                        )
                if scale == 0.01 and model == config.model_names[0]:
                    ratio, steps, _ = statistics(view.records, "category", first)
                    taken = len(view.records[0].of("rows", "category"))
                    note = f"the training has {taken} steps" if taken < config.first_steps else ""
                    record.judge("G1", "norm_ratio", ratio, experiment, note)
                    record.judge("G2", "negative_cosine_share", steps, experiment, note)
    record.tables["statistics"] = rows
    record.tables["steps"] = [line for view in views for line in step_rows(view)]
    record.write()
    return Result(config, record, views)


def step_rows(view: View) -> list[dict[str, Any]]:
    """The curves of the figures: category table, mean over seeds."""
    names = ("attention_norm", "representation_norm", "mean_cosine", "negative_share", "table_cosine")
    means = {name: np.mean([r.of(name, "category") for r in view.records], 0) for name in names}
    return [
        {
            "log": view.experiment.name,
            "model": view.model,
            "initial scale": view.initial_scale,
            "step": step + 1,
            **{name: float(values[step]) for name, values in means.items()},
        }
        for step in range(len(means["mean_cosine"]))
    ]


def main_views(result: Result) -> list[View]:
    """The views at the published initial scale."""
    return [view for view in result.views if view.initial_scale == 0.01]


def show_norms(result: Result) -> Shown:
    """Figure 2: mean norm of a row's gradient by module over training, category table."""
    style()
    views = main_views(result)
    drawn, axes = plt.subplots(1, len(views), figsize=(4.8 * len(views), 3.4), squeeze=False)
    parts = []
    for axis, view in zip(axes[0], views, strict=True):
        means = {}
        for module in ("attention", "representation"):
            curves = np.stack([r.of(f"{module}_norm", "category") for r in view.records])
            steps = np.arange(1, curves.shape[1] + 1)
            axis.plot(steps, curves.mean(0), color=PALETTE[module], label=module)
            axis.fill_between(steps, curves.min(0), curves.max(0), color=PALETTE[module], alpha=0.25, lw=0)
            means[module] = curves[:, : result.config.first_steps].mean()
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
        window = slice(0, result.config.first_steps)
        steps = np.concatenate([r.of("mean_cosine", "category")[window] for r in view.records])
        left.hist(steps, bins=30, color=PALETTE["attention"])
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
            f"{view.experiment.name}: {np.mean(steps < 0):.0%} of the first steps have a negative mean, "
            f"{below:.0%} of row-wise cosines over training are negative"
        )
    return figure(drawn, "Histograms of cosines between the two gradients, category table. " + "; ".join(parts) + ".")


def show_statistics(result: Result) -> Shown:
    """Every table, both windows, both initial scales."""
    return table(result.record.tables["statistics"], "Dominance and conflict by table, window and initial scale")
