"""Retrieval number and history length: AUC when fewer or more behaviours are retrieved (claim D1; paper,
appendix D.1) and when histories are shorter or longer (D2; appendix D.2)."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from dare_core.intervals import Interval, auc_interval, difference_interval, holm
from dare_core.present import Shown, colour, figure, style, table
from dare_core.runs import RunStore
from dare_core.studies.common import Experiment, Record, StudyConfig, show_stored_table
from dare_core.studies.scores import Resampled, auc_table
from dare_core.studies.sweeps import best_rule, minus, numbers, scores_at

CLAIMED, REFERENCE = "DARE", "TWIN"
MARKS = {CLAIMED: "o-", REFERENCE: "s--"}
KNOWN = 0.5
"""A length is studied where at least this share of the test targets has so many behaviours before it."""


class Config(StudyConfig):
    """Parameters of the Retrieval number chapter."""

    models: str = Field("DARE,TWIN", description="models to train; the claims need DARE and TWIN")
    retrieved: str = Field("5,20,100", min_length=1, description="numbers of retrieved behaviours, K; N is history")
    lengths: str = Field("20,200", min_length=1, description="lengths of history, N; K is top_k")

    @field_validator("retrieved", "lengths")
    @classmethod
    def _numbers(cls, value: str) -> str:
        return ",".join(str(number) for number in numbers(value))


@dataclass
class View:
    """One log: bootstrapped AUC by point (see `point`), and the best rule of each length."""

    experiment: Experiment
    lengths: list[int]  # those of the configuration that the log allows
    resampled: Resampled
    rules: dict[int, tuple[str, float]] = field(default_factory=dict)  # by length


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]


def point(model: str, retrieved: int, length: int) -> str:
    """Name of one trained setting."""
    return f"{model}, K = {retrieved}, N = {length}"


def share_known(experiment: Experiment, length: int) -> float:
    """Share of the test targets with at least so many behaviours before them."""
    test = experiment.samples(1)["test"]
    return float((test.row - test.start >= length).double().mean())


def trained(experiment: Experiment, config: Config, lengths: Sequence[int]) -> dict[str, list[np.ndarray]]:
    """Test probabilities of every point, on the same targets and negatives."""
    settings = [(k, config.history) for k in numbers(config.retrieved)] + [(config.top_k, n) for n in lengths]
    return {
        point(model, k, n): scores_at(experiment, model, history=n, top_k=k)
        for model in config.model_names
        for k, n in dict.fromkeys(settings)
    }


def judge(record: Record, view: View, config: Config) -> None:
    """Add the rows of D1 and D2 that the models, numbers and lengths allow."""
    if not {CLAIMED, REFERENCE} <= set(config.model_names):
        return
    resamples, draws = view.resampled

    def advantage(retrieved: int, length: int) -> tuple[np.ndarray, np.ndarray]:
        return minus(*(resamples[point(model, retrieved, length)] for model in (CLAIMED, REFERENCE)))

    retrieved = numbers(config.retrieved)
    few, many = retrieved[0], retrieved[-1]
    if few < many:
        interval = difference_interval(advantage(few, config.history), advantage(many, config.history), draws)
        note = f"K = {few} against {many}, N = {config.history}"
        record.judge("D1", "advantage_few_minus_many", interval, view.experiment, note)
    short, long = min(view.lengths, default=0), max(view.lengths, default=0)
    if short < long:
        pairs = {
            "dare_long_minus_short": (
                resamples[point(CLAIMED, config.top_k, long)],
                resamples[point(CLAIMED, config.top_k, short)],
            ),
            "advantage_long_minus_short": (advantage(config.top_k, long), advantage(config.top_k, short)),
        }
        note = f"N = {long} against {short}, K = {config.top_k}; Holm's correction over 2 comparisons"
        for quantity, interval in holm(pairs, draws).items():
            record.judge("D2", quantity, interval, view.experiment, note)


def score_rows(view: View, config: Config) -> list[dict[str, Any]]:
    """AUC and DARE's advantage, a line each point. A further metric of a point is a further column here."""
    resamples, draws = view.resampled
    rows = []
    sweeps = [("K", k, k, config.history) for k in numbers(config.retrieved)]
    sweeps += [("N", n, config.top_k, n) for n in view.lengths]
    for varied, at, k, n in sweeps:
        for model in config.model_names:
            values = resamples[point(model, k, n)]
            interval = auc_interval(values, draws)
            line: dict[str, Any] = {
                "log": view.experiment.name,
                "varied": varied,
                "K": k,
                "N": n,
                "model": model,
                "AUC": interval.estimate,
                "AUC, low": interval.low,
                "AUC, high": interval.high,
            }
            claimed = resamples.get(point(CLAIMED, k, n))
            lead = difference_interval(claimed, values, draws) if claimed and model != CLAIMED else None
            line |= _columns("DARE minus it", lead)
            line["best rule"] = view.rules[n][1]
            line["targets with so long a history"] = share_known(view.experiment, at) if varied == "N" else None
            rows.append(line)
    return rows


def _columns(name: str, interval: Interval | None) -> dict[str, float | None]:
    """An interval as three columns."""
    values = (interval.estimate, interval.low, interval.high) if interval else (None, None, None)
    return dict(zip((name, f"{name}, low", f"{name}, high"), values, strict=True))


def run(config: Config) -> Result:
    """Train every model at every number and length on every log, and judge D1 and D2."""
    record = Record("retrieval_number", config, RunStore())
    views = []
    scores: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        lengths = [n for n in numbers(config.lengths) if share_known(experiment, n) >= KNOWN]
        view = View(experiment, lengths, auc_table(experiment, trained(experiment, config, lengths)))
        view.rules |= {n: best_rule(experiment, n) for n in {config.history, *lengths}}
        judge(record, view, config)
        scores += score_rows(view, config)
        views.append(view)
    record.tables["scores"] = scores
    record.write()
    return Result(config, record, views)


def _draw(axis: Axes, rows: list[dict[str, Any]], varied: str, value: str) -> None:
    """A column against K or N, a line a model, with its interval as a band."""
    for model in dict.fromkeys(r["model"] for r in rows if r[value] is not None):
        own = [r for r in rows if r["model"] == model]
        x = [r[varied] for r in own]
        axis.plot(x, [r[value] for r in own], MARKS.get(model, "^-."), color=colour(model), label=model)
        low, high = ([r[f"{value}, {end}"] for r in own] for end in ("low", "high"))
        axis.fill_between(x, low, high, color=colour(model), alpha=0.15, lw=0)
    ticks = sorted({r[varied] for r in rows})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def _show(result: Result, varied: str, what: str) -> Shown:
    """AUC, and DARE's advantage, against K or N: a line of panels a log."""
    style()
    drawn, axes = plt.subplots(len(result.views), 2, figsize=(9.5, 3.4 * len(result.views)), squeeze=False)
    parts = []
    for (left, right), view in zip(axes, result.views, strict=True):
        name = view.experiment.name
        rows = [r for r in result.record.tables["scores"] if r["log"] == name and r["varied"] == varied]
        if not rows:
            left.set_title(f"{name}: no length that this log allows")
            continue
        _draw(left, rows, varied, "AUC")
        levels = {r[varied]: r["best rule"] for r in rows}
        left.plot(list(levels), list(levels.values()), ":", color=colour("rule"), label="best rule")
        left.set(title=name, xlabel=what, ylabel="test AUC, 95 % interval")
        left.legend(fontsize=8)
        _draw(right, rows, varied, "DARE minus it")
        right.axhline(0, color="black", lw=0.8)
        right.set(title=name, xlabel=what, ylabel="DARE's lead in AUC, 95 %")
        if right.get_legend_handles_labels()[1]:
            right.legend(fontsize=8, title="over", title_fontsize=8)
        for model in dict.fromkeys(r["model"] for r in rows):
            own = [r for r in rows if r["model"] == model]
            ends = " and ".join(f"{r['AUC']:.3f} at {varied} = {r[varied]}" for r in (own[0], own[-1]))
            parts.append(f"{name}, {model}: {ends}")
    return figure(drawn, f"Test AUC, and DARE's lead over the others, by {what}. " + "; ".join(parts) + ".")


def show_retrieved(result: Result) -> Shown:
    """AUC against the number of retrieved behaviours."""
    return _show(result, "K", "retrieved behaviours, K")


def show_lengths(result: Result) -> Shown:
    """AUC against the length of history."""
    return _show(result, "N", "length of history, N")


def show_scores(result: Result) -> Shown:
    """AUC and DARE's advantage at every number and length."""
    return table(result.record.tables["scores"], "Test AUC by number of retrieved behaviours K and length of history N")


def show_stored(result: Result) -> Shown:
    """The stored sweep over every number and length."""
    return show_stored_table("retrieval_number", "scores", "Every number of retrieved behaviours and length")
