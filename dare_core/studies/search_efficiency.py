"""Search efficiency: AUC and measured search time when the searched embedding shrinks (claim E1; paper,
section 4.5, figures 11c and 11d)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from dare_core.evaluation.intervals import Interval, Replicates, interval, ratio_interval
from dare_core.evaluation.search_time import SearchTime, measure
from dare_core.report.claims import NOT_COMPUTED, Basis
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table
from dare_core.schedule import measuring
from dare_core.studies import settings
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.scores import auc_table, columns
from dare_core.studies.sweeps import best_rule
from dare_core.training.runs import RunStore

PARTS = {2: "half", 4: "quarter"}
"""The parts of E1: what the searched embedding is divided by."""
LINES = {CLAIMED: "o-", REFERENCE: "s--"}

Config = settings.SearchEfficiencyConfig


@dataclass
class View:
    """One log: AUC replicates by point (see `point`), and the level of the best rule."""

    experiment: Experiment
    replicates: Mapping[str, Replicates]
    rule: tuple[str, float]


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: Record
    views: list[View]
    times: dict[int, SearchTime]  # by K_A


def point(model: str, size: int, searched: int) -> str:
    """Name of one trained setting."""
    return f"{model}, size {size}, K_A = {searched}"


def trained(experiment: Experiment, config: Config) -> dict[str, list[np.ndarray]]:
    """Test probabilities of every point: DARE with a smaller attention embedding, TWIN with all of it smaller."""
    found = {}
    for size in config.sizes:
        for searched in config.attention_sizes(size).values():
            smaller = {} if searched == size else {"attention_size": searched}
            found[point(CLAIMED, size, searched)] = experiment.runs_at(CLAIMED, size=size, **smaller)
            found[point(REFERENCE, size, searched)] = experiment.runs_at(REFERENCE, size=searched)
    return {name: [run.test_probability for run in runs] for name, runs in found.items()}


def time_ratio(shorter: SearchTime, longer: SearchTime) -> Interval:
    """Search time of one attention size over another's: geometric mean over rounds of the ratio within a round.

    The interval is over rounds (Student's t on the log scale): what the machine's other work does to a measurement,
    and no more.
    """
    return ratio_interval(shorter.searching[:, None], longer.searching[:, None])


def judge(record: Record, view: View, config: Config) -> None:
    """Add the rows of E1 about AUC, at the study's own size; what needs a part that was not trained is not judged."""
    searched = config.attention_sizes(config.size)

    def loss(model: str, part: int) -> Replicates:
        whole, less = (view.replicates[point(model, config.size, searched[p])] for p in (1, part))
        return whole - less

    for part, name in PARTS.items():
        found: dict[str, Interval | None] = dict.fromkeys((f"loss_{name}_dare", f"loss_{name}_twin_minus_dare"))
        if part in searched:
            dare = loss(CLAIMED, part)
            found = dict(zip(found, (interval(dare), interval(loss(REFERENCE, part) - dare)), strict=True))
        for quantity, measured in found.items():
            note = f"size {config.size}" if measured else f"{NOT_COMPUTED}part {part}"
            record.judge("E1", quantity, measured, view.experiment, note)


def judge_time(record: Record, config: Config, times: Mapping[int, SearchTime]) -> None:
    """Add E1's row about time: one without a log, because the embeddings are random; it is shown and not judged."""
    searched = config.attention_sizes(config.size)
    measured, note = None, f"{NOT_COMPUTED}part 2"
    if 2 in searched:
        measured = time_ratio(times[searched[2]], times[searched[1]])
        note = (
            f"size {config.size}, N = {config.search_length:,}, interval over {config.search_rounds} rounds; another "
            "machine or session gives another number, and the paper's .5 counts multiplications"
        )
    record.judge_on("E1", "search_time_half", measured, Basis(log=None, kind=None), note)


def score_rows(view: View, config: Config, times: Mapping[int, SearchTime]) -> list[dict[str, Any]]:
    """AUC, what is lost against the whole embedding, and search time, one row per point."""
    rows = []
    for size in config.sizes:
        for model in (CLAIMED, REFERENCE):
            for part, searched in config.attention_sizes(size).items():
                values = view.replicates[point(model, size, searched)]
                auc, lost = interval(values), interval(view.replicates[point(model, size, size)] - values)
                rows.append(
                    {
                        "log": view.experiment.name,
                        "model": model,
                        "size": size,
                        "K_A": searched,
                        "K_R": size if model == CLAIMED else searched,
                        "search cost": 1 / part,
                        **columns("AUC", auc.estimate, auc.low, auc.high),
                        **columns("AUC lost", lost.estimate, lost.low, lost.high),
                        "search time": time_ratio(times[searched], times[size]).estimate,
                    }
                )
    return rows


def time_rows(times: dict[int, SearchTime], whole: int) -> list[dict[str, Any]]:
    """Measured time of each attention size, beside the normalised complexity and the time of reading."""
    rows = []
    for searched, time in sorted(times.items(), reverse=True):
        ratio = time_ratio(time, times[whole])
        rows.append(
            {
                "K_A": searched,
                "N": time.length,
                "search, microseconds": float(np.median(time.searching)),
                "reading the same bytes, microseconds": float(np.median(time.reading)),
                "search over reading": float(np.median(time.searching / time.reading)),
                "normalised complexity": searched / whole,
                **columns("normalised time", ratio.estimate, ratio.low, ratio.high),
            }
        )
    return rows


def run(config: Config) -> Result:
    """Time the searches, train every size on every log, and judge E1."""
    record = Record("search_efficiency", config, RunStore())
    wanted = sorted({k for size in config.sizes for k in (size, *config.attention_sizes(size).values())}, reverse=True)
    with measuring():
        times = {t.size: t for t in measure(config.search_length, wanted, config.search_rounds, top_k=config.top_k)}
    views = []
    scores: list[dict[str, Any]] = []
    for name in config.log_names:
        experiment = record.use(name)
        view = View(experiment, auc_table(experiment, trained(experiment, config)), best_rule(experiment))
        judge(record, view, config)
        scores += score_rows(view, config, times)
        views.append(view)
    judge_time(record, config, times)
    record.tables |= {"scores": scores, "search_time": time_rows(times, config.size)}
    record.write()
    return Result(config, record, views, times)


def _rows_of(result: Result, view: View, model: str) -> list[dict[str, Any]]:
    """The score lines of a log and model at the study's own size, widest search first."""
    own = (view.experiment.name, model, result.config.size)
    return [r for r in result.record.tables["scores"] if (r["log"], r["model"], r["size"]) == own]


def show_auc(result: Result) -> Shown:
    """Figure 11c-d: test AUC by attention size, with the best rule's level."""
    style()
    count = len(result.views)
    drawn, axes = plt.subplots(1, count, figsize=(4.8 * count, 3.6), squeeze=False)
    parts = []
    for axis, view in zip(axes[0], result.views, strict=True):
        for model, mark in LINES.items():
            rows = _rows_of(result, view, model)
            sizes = [r["K_A"] for r in rows]
            own = f"{result.config.size}" if model == CLAIMED else "K_A"
            label = f"{model}, $K_R = {own}$"
            axis.plot(sizes, [r["AUC"] for r in rows], mark, color=colour(model), label=label)
            low, high = ([r[f"AUC, {end}"] for r in rows] for end in ("low", "high"))
            axis.fill_between(sizes, low, high, color=colour(model), alpha=0.15, lw=0)
            ends = f"{rows[0]['AUC']:.3f} at K_A = {sizes[0]} and {rows[-1]['AUC']:.3f} at {sizes[-1]}"
            parts.append(f"{view.experiment.name}, {model}: {ends}")
        level = [view.rule[1]] * len(sizes)
        axis.plot(sizes, level, ":", color=colour("rule"), label=f"rule: {view.rule[0]}")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(k) for k in sizes])
        axis.minorticks_off()
        axis.set(title=view.experiment.name, xlabel="attention size per field, $K_A$", ylabel="test AUC, 95 % interval")
        axis.legend(fontsize=8)
    return figure(drawn, "Test AUC by the size of the searched embedding. " + "; ".join(parts) + ".")


def show_trade(result: Result) -> Shown:
    """AUC lost against search time saved, one point per part of the embedding."""
    style()
    count = len(result.views)
    drawn, axes = plt.subplots(1, count, figsize=(4.8 * count, 3.6), squeeze=False, sharey=True)
    parts = []
    for axis, view in zip(axes[0], result.views, strict=True):
        for shift, (model, mark) in zip((-0.4, 0.4), LINES.items(), strict=True):
            rows = _rows_of(result, view, model)
            saved = [100 * (1 - r["search time"]) + shift for r in rows]
            lost = np.array([r["AUC lost"] for r in rows])
            spread = [lost - [r["AUC lost, low"] for r in rows], [r["AUC lost, high"] for r in rows] - lost]
            axis.errorbar(saved, lost, spread, fmt=mark, color=colour(model), label=model, capsize=3)
            for row in rows[1:]:
                time = 100 * (1 - row["search time"])
                what = f"{view.experiment.name}, {model} with K_A = {row['K_A']}"
                parts.append(f"{what} loses {row['AUC lost']:.4f} and saves {time:.0f} %")
        axis.axhline(0, color="black", lw=0.8)
        axis.set(title=view.experiment.name, xlabel="search time saved, %", ylabel="AUC lost, 95 % interval")
        axis.legend(fontsize=8, loc="upper left")
    return figure(drawn, "AUC lost against measured search time saved. " + "; ".join(parts) + ".")


def show_time(result: Result) -> Shown:
    """Measured search time beside the normalised complexity."""
    style()
    rows = result.record.tables["search_time"]
    drawn, axis = plt.subplots(figsize=(5.6, 3.6))
    sizes = [r["K_A"] for r in rows]
    whole = next(r for r in rows if r["K_A"] == result.config.size)
    axis.plot(sizes, [r["normalised complexity"] for r in rows], "k:", label="complexity, $K_A N$")
    axis.plot(sizes, [r["normalised time"] for r in rows], "o-", color=colour("attention"), label="search, measured")
    reading = "reading the same bytes, microseconds"
    limit = [r[reading] / whole["search, microseconds"] for r in rows]
    axis.plot(sizes, limit, "s--", color=colour("rule"), label="only reading the bytes")
    axis.set_xscale("log", base=2)
    axis.set_xticks(sizes, [str(k) for k in sizes])
    axis.minorticks_off()
    axis.set_ylim(bottom=0)
    axis.set(xlabel="attention size per field, $K_A$", ylabel=f"time; search at $K_A = {whole['K_A']}$ is 1")
    axis.legend(fontsize=8)
    told = "; ".join(f"{r['normalised time']:.2f} at K_A = {r['K_A']}" for r in rows)
    return figure(drawn, f"Measured search time among {result.config.search_length:,} behaviours: {told}.")


def show_scores(result: Result) -> Shown:
    """AUC, loss and search time of every point."""
    return table(result.record.tables["scores"], "Test AUC by size of the searched embedding")


def show_times(result: Result) -> Shown:
    """Search times."""
    caption = "Search time for one user and target: medians over rounds, and geometric means of ratios"
    return table(result.record.tables["search_time"], caption)


def show_stored(result: Result) -> Shown:
    """The stored sweep: further sizes, and smaller parts."""
    return show_stored_table("search_efficiency", "scores", "Every size of the searched embedding")
