"""Retrieval number and history length: AUC, and NDCG of retrieval, when fewer or more behaviours are retrieved
(claim D1; paper, appendix D.1) and when histories are shorter or longer (D2; appendix D.2)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from pydantic import Field, field_validator

from dare_core.gains import information_gains
from dare_core.intervals import Draws, Interval, Resamples, difference_interval, holm, mean_interval, mean_resamples
from dare_core.metrics import Array
from dare_core.present import Shown, colour, figure, style, table
from dare_core.retrieval import candidate_ndcg, retrieve, retrieve_by_rule
from dare_core.runs import Run, RunStore
from dare_core.studies.common import Experiment, Record
from dare_core.studies.gain_settings import GainSettings
from dare_core.studies.scores import Resampled, auc_table
from dare_core.studies.stored import show_stored_table
from dare_core.studies.sweeps import best_rule, minus, numbers, runs_at, samples_at

CLAIMED, REFERENCE = "DARE", "TWIN"
QUALITY_RULES = ("same category, then newest", "random")
MARKS = {CLAIMED: "o-", REFERENCE: "s--", **dict(zip(QUALITY_RULES, ("x:", "+:"), strict=True))}
KNOWN = 0.5
"""A length is studied where at least this share of the test targets has so many behaviours before it."""


class Config(GainSettings):
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
    quality: dict[str, Resamples]  # NDCG of retrieval, by point
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


def trained(experiment: Experiment, config: Config, lengths: Sequence[int]) -> dict[tuple[str, int, int], list[Run]]:
    """Runs of every model, number and length, on the same targets and negatives."""
    settings = [(k, config.history) for k in numbers(config.retrieved)] + [(config.top_k, n) for n in lengths]
    return {
        (model, k, n): runs_at(experiment, model, history=n, top_k=k)
        for model in config.model_names
        for k, n in dict.fromkeys(settings)
    }


def retrieval_quality(
    experiment: Experiment, config: Config, runs: Mapping[tuple[str, int, int], list[Run]], draws: Draws
) -> dict[str, Resamples]:
    """NDCG at K of what the models and two rules retrieve of N behaviours, by point.

    Gains are the mutual information by which A3 is judged (`GainRule`), from training samples of the same N.
    """
    values: dict[str, list[Array]] = {}
    settings = dict.fromkeys((k, n) for _, k, n in runs)
    for index, seed in enumerate(experiment.seeds):
        for n in dict.fromkeys(n for _, n in settings):
            splits = samples_at(experiment, seed, n)
            gains = information_gains(splits["train"], splits["test"], config.rule)
            for k in (k for k, length in settings if length == n):
                found = {rule: retrieve_by_rule(rule, splits["test"], k, seed) for rule in QUALITY_RULES}
                for model in config.model_names:
                    trained_model = runs[model, k, n][index].model(experiment.log)
                    found[model] = retrieve(trained_model, splits["test"], k, items=config.with_items)
                for name, retrieval in found.items():
                    ndcg = candidate_ndcg(gains.information, retrieval.order, gains.judged, config.published_ndcg)
                    values.setdefault(point(name, k, n), []).append(ndcg[..., -1])
    return {name: mean_resamples(seeds, draws) for name, seeds in values.items()}


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
    """AUC, DARE's advantage and NDCG of retrieval, a line each point; rules have the NDCG alone."""
    resamples, draws = view.resampled
    rows = []
    sweeps = [("K", k, k, config.history) for k in numbers(config.retrieved)]
    sweeps += [("N", n, config.top_k, n) for n in view.lengths]
    for varied, at, k, n in sweeps:
        claimed = resamples.get(point(CLAIMED, k, n))
        for model in [*config.model_names, *QUALITY_RULES]:
            values = resamples.get(point(model, k, n))
            line: dict[str, Any] = {"log": view.experiment.name, "varied": varied, "K": k, "N": n, "model": model}
            line |= _columns("AUC", mean_interval(values, draws) if values else None)
            lead = difference_interval(claimed, values, draws) if claimed and values and model != CLAIMED else None
            line |= _columns("DARE minus it", lead)
            line |= _columns("NDCG", mean_interval(view.quality[point(model, k, n)], draws))
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
        runs = trained(experiment, config, lengths)
        probabilities = {point(*key): [run.test_probability for run in own] for key, own in runs.items()}
        resampled = auc_table(experiment, probabilities)
        quality = retrieval_quality(experiment, config, runs, resampled[1])
        view = View(experiment, lengths, resampled, quality)
        view.rules |= {n: best_rule(experiment, n) for n in {config.history, *lengths}}
        judge(record, view, config)
        scores += score_rows(view, config)
        views.append(view)
    record.tables["scores"] = scores
    record.write()
    return Result(config, record, views)


def _draw(axis: Axes, rows: list[dict[str, Any]], varied: str, value: str) -> None:
    """A column against K or N, a line a model or rule, with its interval as a band."""
    for model in dict.fromkeys(r["model"] for r in rows if r[value] is not None):
        own = [r for r in rows if r["model"] == model]
        x = [r[varied] for r in own]
        ink = colour("rule" if model in QUALITY_RULES else model)
        axis.plot(x, [r[value] for r in own], MARKS.get(model, "^-."), color=ink, label=model, ms=5)
        low, high = ([r[f"{value}, {end}"] for r in own] for end in ("low", "high"))
        axis.fill_between(x, low, high, color=ink, alpha=0.15, lw=0)
    ticks = sorted({r[varied] for r in rows})
    axis.set_xscale("log")
    axis.set_xticks(ticks, [str(tick) for tick in ticks])
    axis.minorticks_off()


def _show(result: Result, varied: str, what: str) -> Shown:
    """AUC, DARE's advantage, and NDCG of retrieval, against K or N: a line of panels a log."""
    style()
    drawn, axes = plt.subplots(len(result.views), 3, figsize=(12.5, 3.4 * len(result.views)), squeeze=False)
    parts = []
    for (left, middle, right), view in zip(axes, result.views, strict=True):
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
        _draw(middle, rows, varied, "DARE minus it")
        middle.axhline(0, color="black", lw=0.8)
        middle.set(title=name, xlabel=what, ylabel="DARE's lead in AUC, 95 %")
        if middle.get_legend_handles_labels()[1]:
            middle.legend(fontsize=8, title="over", title_fontsize=8)
        judged = [r for r in rows if np.isfinite(r["NDCG"])]
        _draw(right, judged, varied, "NDCG")
        right.set(title=name, xlabel=what, ylabel="NDCG of the K retrieved, 95 %")
        if judged:
            right.legend(fontsize=7)
        for model in dict.fromkeys(r["model"] for r in rows):
            own = [r for r in rows if r["model"] == model]
            for value in ("AUC", "NDCG"):
                known = [r for r in own if r[value] is not None and np.isfinite(r[value])]
                if known:
                    ends = " and ".join(f"{r[value]:.3f} at {varied} = {r[varied]}" for r in (known[0], known[-1]))
                    parts.append(f"{name}, {model}, {value}: {ends}")
    what = f"Test AUC, DARE's lead over the others, and NDCG of retrieval, by {what}. "
    return figure(drawn, what + "; ".join(parts) + ".")


def show_retrieved(result: Result) -> Shown:
    """AUC and NDCG against the number of retrieved behaviours."""
    return _show(result, "K", "retrieved behaviours, K")


def show_lengths(result: Result) -> Shown:
    """AUC and NDCG against the length of history."""
    return _show(result, "N", "length of history, N")


def show_scores(result: Result) -> Shown:
    """AUC, DARE's advantage and NDCG at every number and length."""
    caption = "Test AUC and NDCG of retrieval by number of retrieved behaviours K and length of history N"
    return table(result.record.tables["scores"], caption)


def show_stored(result: Result) -> Shown:
    """The stored sweep over every number and length."""
    return show_stored_table("retrieval_number", "scores", "Every number of retrieved behaviours and length")
