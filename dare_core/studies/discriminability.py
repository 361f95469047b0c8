"""Discriminability: mutual information of clustered representations with the label (claims R1 and R2, figure 10)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from dare_core.evaluation.discriminability import CLUSTERS, Representation
from dare_core.evaluation.intervals import Interval, all_above, interval
from dare_core.evaluation.metrics import Array
from dare_core.models.zoo import MODELS
from dare_core.report.claims import NOT_COMPUTED
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table
from dare_core.studies.clusterings import KINDS, RULE, View, measure, summary_rows, value_rows
from dare_core.studies.common import StudyConfig
from dare_core.studies.experiment import Record
from dare_core.studies.scores import columns
from dare_core.training.runs import RunStore

CONTROL = "independent"
Weights = Mapping[str, float]
"""A comparison: how much each model's mutual information counts."""
Reduce = Callable[[Array], Interval]
"""The interval of differences (S, 1 + G, N) over N numbers of clusters."""


def mean(differences: Array) -> Interval:
    """Mean over numbers of clusters."""
    return interval(differences.mean(-1))


def at_every(differences: Array) -> Interval:
    """At every number of clusters: the smallest difference, as an intersection-union test."""
    return all_above({str(n): differences[..., n] for n in range(differences.shape[-1])})


def minus(first: Weights, second: Weights) -> Weights:
    """The difference of two comparisons."""
    names = dict.fromkeys([*first, *second])
    return {n: w for n in names if (w := first.get(n, 0.0) - second.get(n, 0.0))}


TARGET_AWARE_GAP = {"DARE": 0.5, "TWIN": 0.5, "DARE (w/o TR)": -0.5, "TWIN (w/o TR)": -0.5}
DECOUPLING_GAP = {"DARE": 0.5, "DARE (w/o TR)": 0.5, "TWIN": -0.5, "TWIN (w/o TR)": -0.5}
"""Mean over both forms, as target-aware representation's gap is the mean over both models."""
R1: dict[str, tuple[Weights, Reduce]] = {
    "mi_dare_minus_twin": ({"DARE": 1, "TWIN": -1}, at_every),
    "mi_twin_4e_minus_twin": ({"TWIN-4E": 1, "TWIN": -1}, mean),
    "mi_twin_minus_din": ({"TWIN": 1, "DIN": -1}, mean),
}
R2: dict[str, tuple[Weights, Reduce]] = {
    "mi_tr_minus_concatenation": (TARGET_AWARE_GAP, mean),
    "mi_tr_gap_minus_decoupling_gap": (minus(TARGET_AWARE_GAP, DECOUPLING_GAP), mean),
    "mi_dare_minus_twin_concatenation": ({"DARE (w/o TR)": 1, "TWIN (w/o TR)": -1}, mean),
}
SUFFIXES: dict[Representation, str] = {"whole input": "_whole_input", "pooled history": ""}
"""Ending of a quantity's name by what is clustered, the paper's figure first."""


class Config(StudyConfig):
    """Parameters of the Discriminability chapter."""

    models: str = Field("DARE,TWIN,DIN,TWIN (w/o TR),DARE (w/o TR)", description="models to train, or all")
    clusters: str = Field("2,10,50", description="numbers of clusters, or all of the published analysis")
    cluster_seeds: int = Field(3, ge=1, le=100, description="K-means runs per model, seed and number of clusters")
    control_seeds: int = Field(1, ge=0, le=100, description="independent worlds of the control; 0: no control")

    @field_validator("clusters")
    @classmethod
    def _numbers(cls, value: str) -> str:
        if value != "all" and not all(n.strip().isdigit() and int(n) > 1 for n in value.split(",")):
            raise ValueError("expects numbers above 1, separated by commas, or all")
        return value

    @property
    def model_names(self) -> list[str]:
        """The models asked for; `all` is the whole table of models."""
        return list(MODELS) if self.models == "all" else self.models.split(",")

    @property
    def numbers(self) -> tuple[int, ...]:
        """The numbers of clusters asked for."""
        return CLUSTERS if self.clusters == "all" else tuple(int(n) for n in self.clusters.split(","))


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]  # of each log, the control last


def compare(view: View, kind: Representation, weights: Weights, reduce: Reduce) -> tuple[Interval, Interval]:
    """A comparison of models: its interval less the chance level, and plain."""
    used = [(view.measured[kind][name], weight) for name, weight in weights.items()]
    less_chance = np.sum([weight * one.above_chance for one, weight in used], 0)
    return reduce(less_chance), reduce(np.sum([weight * one.plain for one, weight in used], 0))


def judge(record: Record, view: View, cluster_seeds: int) -> list[dict[str, Any]]:
    """Add the rows of R1 and R2, on the whole input and on the pooled history; returns the table of differences.

    A quantity whose models are missing cannot be tested.
    """
    rows = []
    clusters = f"{view.numbers[0]} to {view.numbers[-1]} clusters, K-means seeds: {cluster_seeds}"
    for (claim, quantities), (kind, suffix) in product((("R1", R1), ("R2", R2)), SUFFIXES.items()):
        for name, (weights, reduce) in quantities.items():
            quantity = name + suffix
            if absent := [model for model in weights if model not in view.measured[kind]]:
                record.judge(claim, quantity, None, view.experiment, f"{NOT_COMPUTED}{', '.join(absent)}")
                continue
            found, plain = compare(view, kind, weights, reduce)
            record.judge(claim, quantity, found, view.experiment, f"less the chance level; plain {plain}; {clusters}")
            rows.append(
                {"log": view.experiment.name, "representation": kind, "claim": claim, "quantity": quantity}
                | columns("less chance", found.estimate, found.low, found.high)
                | columns("plain", plain.estimate, plain.low, plain.high)
                | {"detectable": found.detectable}
            )
    return rows


def run(config: Config) -> Result:
    """Train and cluster every model on every log, judge R1 and R2, and measure the control, which is not judged."""
    record = Record("discriminability", config, RunStore())
    asked = (config.model_names, config.numbers, config.cluster_seeds)
    views, differences = [], []
    for name in config.log_names:
        views.append(measure(record.use(name), *asked))
        differences += judge(record, views[-1], config.cluster_seeds)
    if config.control_seeds and CONTROL not in config.log_names:
        fewer = config.model_copy(update={"seeds": config.control_seeds})
        views.append(measure(replace(record, config=fewer).use(CONTROL), *asked))
    record.tables |= {
        "values": [row for view in views for row in value_rows(view)],
        "summary": [row for view in views for row in summary_rows(view)],
        "differences": differences,
    }
    record.write()
    return Result(config, record, views)


FIGURE_10 = ("DARE", "TWIN-4E", "TWIN", "DIN")
PLACES = {**dict(zip(FIGURE_10, "osD^", strict=True)), RULE: "x"}


def curves(axis: Axes, view: View, kind: Representation, part: str) -> None:
    """One line per model of figure 10 by number of clusters, its band over seeds."""
    for name in (n for n in PLACES if n in view.measured[kind]):
        values = getattr(view.measured[kind][name], part)[:, 0]
        ink = colour("rule" if name == RULE else name)
        label = "rule" if name == RULE else name
        axis.plot(view.numbers, values.mean(0), color=ink, marker=PLACES[name], ms=4, lw=1.6, label=label)
        axis.fill_between(view.numbers, values.min(0), values.max(0), color=ink, alpha=0.18, lw=0)
    logarithmic(axis, view.numbers)


def logarithmic(axis: Axes, numbers: list[int]) -> None:
    """Numbers of clusters on a logarithmic axis, ticks where they are."""
    axis.set_xscale("log")
    axis.set_xticks(numbers, [str(n) for n in numbers], fontsize=8, rotation=45)
    axis.minorticks_off()
    axis.set_xlabel("clusters")


def root_scale(axis: Axes) -> None:
    """A vertical axis by the signed root of the value, so that small values can be told apart."""
    low, high = axis.get_ylim()
    axis.set_yscale("function", functions=(lambda y: np.sign(y) * abs(y) ** 0.5, lambda y: np.sign(y) * y**2))
    axis.set_yticks([tick for tick in (-0.01, 0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6) if low <= tick <= high])
    axis.set_ylim(min(low, -0.001), high)


def in_words(view: View, kind: Representation, part: str) -> str:
    """What a panel shows, in words: each model's mean over numbers of clusters."""
    found = {n: float(getattr(view.measured[kind][n], part)[:, 0].mean()) for n in PLACES if n in view.measured[kind]}
    order = sorted(found, key=lambda name: -found[name])
    return ", ".join(f"{'the rule' if name == RULE else name} {found[name]:.4f}" for name in order)


def panels(views: list[View], part: str, label: str, opening: str, chance: bool) -> Shown:
    """One row of panels per log, one panel per kind of representation."""
    style()
    drawn, axes = plt.subplots(len(views), 2, figsize=(9.5, 3.5 * len(views)), squeeze=False)
    for line, view in zip(axes, views, strict=True):
        for axis, kind in zip(line, KINDS, strict=True):
            if chance:
                for name in (n for n in FIGURE_10 if n in view.measured[kind]):
                    one = view.measured[kind][name]
                    level = (one.plain - one.above_chance)[:, 0].mean(0)
                    axis.plot(view.numbers, level, color=colour(name), ls=":", lw=1.4)
            curves(axis, view, kind, part)
            root_scale(axis)
            axis.set(title=f"{view.experiment.name}: {kind}", ylabel=label)
    axes[0][0].legend(fontsize=8)
    parts = [f"{v.experiment.name}, {k}: {in_words(v, k, part)}" for v in views for k in KINDS]
    return figure(drawn, f"{opening} Means over numbers of clusters: " + "; ".join(parts) + ".")


def logs_of(result: Result) -> list[View]:
    """What was measured on the logs asked for, without the control."""
    return result.views[: len(result.config.log_names)]


def show_information(result: Result) -> Shown:
    """Figure 10a-b: mutual information by number of clusters, chance level dotted."""
    opening = "Mutual information by number of clusters; band over seeds, chance level dotted."
    return panels(logs_of(result), "plain", "mutual information, nats", opening, True)


def show_above_chance(result: Result) -> Shown:
    """What is judged: the same less its chance level."""
    opening = "Mutual information less its chance level, by number of clusters; band over seeds."
    return panels(logs_of(result), "above_chance", "less chance, nats", opening, False)


def show_control(result: Result) -> Shown:
    """The same on the independent world, with twice the spread of permuted labels in grey."""
    view = next((view for view in result.views if view.experiment.name == CONTROL), None)
    if view is None:
        return table([], "Control on the independent world")
    style()
    drawn, axes = plt.subplots(1, 2, figsize=(9.5, 3.5), sharey=True)
    outside = whole = 0
    for axis, kind in zip(axes, KINDS, strict=True):
        seeds = view.experiment.config.seeds
        spreads = {n: one.numbers("spread").mean(0) / seeds**0.5 for n, one in view.measured[kind].items() if n != RULE}
        for name, spread in spreads.items():
            above = view.measured[kind][name].above_chance[:, 0].mean(0)
            outside += int((abs(above) > 2 * spread).sum())
            whole += len(above)
        widest = 2 * max(spreads.values(), key=lambda spread: float(spread.sum()))
        axis.fill_between(view.numbers, -widest, widest, color="0.85", lw=0)
        curves(axis, view, kind, "above_chance")
        axis.set(title=f"{CONTROL}: {kind}", ylabel="" if axis is axes[1] else "less chance, nats")
    axes[0].legend(fontsize=8)
    text = (
        "Mutual information less its chance level where nothing can be predicted; grey: twice its standard deviation "
        f"under permuted labels. {outside} of {whole} values of models lie further from 0 than that."
    )
    return figure(drawn, text)


def show_forms(result: Result) -> Shown:
    """Figure 10c: forms of representation of DARE and TWIN, less chance."""
    views = logs_of(result)
    style()
    drawn, axes = plt.subplots(1, len(views), figsize=(max(4.9 * len(views), 6.5), 5.0), squeeze=False)
    forms: list[tuple[str, str, Representation, str, str]] = [
        ("", "target-aware history", "pooled history", "-", "o"),
        ("", "both (whole input)", "whole input", "-.", "s"),
        (" (product)", "product", "pooled history", "--", "D"),
        (" (w/o TR)", "concatenation", "pooled history", ":", "^"),
    ]
    parts = []
    for axis, view in zip(axes[0], views, strict=True):
        for (ending, form, kind, line, mark), model in product(forms, ("DARE", "TWIN")):
            if model + ending not in view.measured[kind]:
                continue
            values = view.measured[kind][model + ending].above_chance[:, 0].mean(0)
            ink = colour(model)
            axis.plot(view.numbers, values, color=ink, ls=line, marker=mark, ms=4, label=f"{model}, {form}")
            parts.append(f"{view.experiment.name}, {model}, {form} {values.mean():.4f}")
        logarithmic(axis, view.numbers)
        axis.set(title=view.experiment.name, ylabel="less chance, nats")
    handles, labels = axes[0][0].get_legend_handles_labels()
    drawn.legend(handles, labels, fontsize=8, ncols=2, loc="outside lower center")
    opening = "Mutual information less chance by form of representation, means over numbers of clusters: "
    return figure(drawn, opening + "; ".join(parts) + ".")


def show_differences(result: Result) -> Shown:
    """Every quantity of R1 and R2 for both representations, less chance and plain."""
    return table(result.record.tables["differences"], "Differences of mutual information, nats")


def show_summary(result: Result) -> Shown:
    """Every model, and the rule, mean over numbers of clusters."""
    return table(result.record.tables["summary"], "Mutual information, nats, mean over numbers of clusters")


def show_stored(result: Result) -> Shown:
    """The stored table of every model."""
    return show_stored_table("discriminability", "summary", "Every model")


def show_stored_differences(result: Result) -> Shown:
    """The stored differences."""
    return show_stored_table("discriminability", "differences", "Differences")
