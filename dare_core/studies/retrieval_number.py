"""Retrieval number and history length: AUC, and NDCG of retrieval, when fewer or more behaviours are retrieved
(claim D1; paper, appendix D.1) and when histories are shorter or longer (D2; appendix D.2)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from dare_core.evaluation.gains import information_gains
from dare_core.evaluation.intervals import Interval, Replicates, interval
from dare_core.evaluation.metrics import Array
from dare_core.evaluation.retrieval import candidate_ndcg, retrieve, retrieve_by_rule
from dare_core.report.claims import NOT_COMPUTED
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table
from dare_core.studies import settings
from dare_core.studies.attention_view import candidate_means
from dare_core.studies.experiment import CLAIMED, REFERENCE, Experiment, Record
from dare_core.studies.scores import auc_table, columns
from dare_core.studies.settings import numbers
from dare_core.studies.sweeps import FEW_AND_MANY, NOT_SEARCHED, at_own_best, best_rule
from dare_core.training.runs import Run, RunStore

FEW, MANY = FEW_AND_MANY
"""The numbers of retrieved behaviours that D1 compares."""
QUALITY_RULES = ("same category, then newest", "random")
MARKS = {CLAIMED: "o-", REFERENCE: "s--", **dict(zip(QUALITY_RULES, ("x:", "+:"), strict=True))}
KNOWN = 0.5
"""A length is studied where at least this share of the test targets has so many behaviours before it."""

Config = settings.RetrievalNumberConfig


@dataclass
class View:
    """One log: AUC replicates by point (see `point`), and the best rule of each length."""

    experiment: Experiment
    lengths: list[int]  # those of the configuration that the log allows
    replicates: Mapping[str, Replicates]
    quality: Mapping[str, Replicates]  # NDCG of retrieval, by point
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
    """Share of the test targets with at least so many behaviours before them, mean over seeds."""
    tests = [experiment.samples(seed)["test"] for seed in experiment.seeds]
    return float(np.mean([float((test.row - test.start >= length).double().mean()) for test in tests]))


def trained(experiment: Experiment, config: Config, lengths: Sequence[int]) -> dict[tuple[str, int, int], list[Run]]:
    """Runs of every model, number and length, on the same targets and negatives."""
    settings = [(k, config.history) for k in numbers(config.retrieved)] + [(config.top_k, n) for n in lengths]
    return {
        (model, k, n): experiment.runs_at(model, history=n, top_k=k)
        for model in config.model_names
        for k, n in dict.fromkeys(settings)
    }


def retrieval_quality(
    experiment: Experiment, config: Config, runs: Mapping[tuple[str, int, int], list[Run]]
) -> dict[str, Replicates]:
    """NDCG at K of what the models and two rules retrieve of N behaviours, by point.

    Gains are the mutual information by which A3 is judged (`GainRule`), from training samples of the same N.
    """
    values: dict[str, list[Array]] = {}
    settings = dict.fromkeys((k, n) for _, k, n in runs)
    for index, seed in enumerate(experiment.seeds):
        for n in dict.fromkeys(n for _, n in settings):
            splits = experiment.samples(seed, history=n)
            gains = information_gains(splits["train"], splits["test"], config.rule)
            for k in (k for k, length in settings if length == n):
                found = {rule: retrieve_by_rule(rule, splits["test"], k, seed) for rule in QUALITY_RULES}
                for model in config.model_names:
                    trained_model = runs[model, k, n][index].model(experiment.log_of(seed))
                    found[model] = retrieve(trained_model, splits["test"], k, items=config.with_items)
                for name, retrieval in found.items():
                    ndcg = candidate_ndcg(gains.information, retrieval.order, gains.judged, config.published_ndcg)
                    values.setdefault(point(name, k, n), []).append(ndcg[..., -1])
    weights = [experiment.weights(experiment.samples(seed)["test"]) for seed in experiment.seeds]
    return {name: candidate_means(seeds, weights) for name, seeds in values.items()}


def few_minus_many(auc: Callable[[str, int], Replicates]) -> Interval:
    """D1's quantity from the AUC of a model at a number of retrieved behaviours."""
    few, many = (auc(CLAIMED, k) - auc(REFERENCE, k) for k in (FEW, MANY))
    return interval(few - many)


def judge_number(record: Record, view: View, config: Config) -> None:
    """Add the row of D1, with each model at its own best setting too where this log was searched for them."""
    if not {FEW, MANY} <= set(numbers(config.retrieved)):
        record.judge("D1", "advantage_few_minus_many", None, view.experiment, f"{NOT_COMPUTED}K = {FEW} and {MANY}")
        return
    measured = few_minus_many(lambda model, k: view.replicates[point(model, k, config.history)])
    notes = [f"N = {config.history}" + (f", at K = {MANY} all retrieved" if config.history <= MANY else "")]
    best = at_own_best(view.experiment, "D1", "advantage_few_minus_many")
    if best is None:
        notes.append(NOT_SEARCHED)
    record.judge("D1", "advantage_few_minus_many", measured, view.experiment, "; ".join(notes), best)


def judge_length(record: Record, view: View, config: Config) -> None:
    """Add the rows of D2: the longest history that the log allows against the shortest."""
    quantities = ("dare_long_minus_short", "advantage_long_minus_short")
    if len(view.lengths) < 2:
        for quantity in quantities:
            record.judge("D2", quantity, None, view.experiment, f"{NOT_COMPUTED}two lengths that the log has")
        return
    short, long = view.lengths[0], view.lengths[-1]
    gains = {
        model: view.replicates[point(model, config.top_k, long)] - view.replicates[point(model, config.top_k, short)]
        for model in (CLAIMED, REFERENCE)
    }
    note = f"N = {long} against {short}, K = {config.top_k}"
    for quantity, values in zip(quantities, (gains[CLAIMED], gains[CLAIMED] - gains[REFERENCE]), strict=True):
        record.judge("D2", quantity, interval(values), view.experiment, note)


def judge(record: Record, view: View, config: Config) -> None:
    """Add the rows of D1 and D2; what the models, numbers and lengths do not allow cannot be tested."""
    missing = [model for model in (CLAIMED, REFERENCE) if model not in config.model_names]
    if missing:
        for claim in ("D1", "D2"):
            for quantity in record.claims[claim].quantities:
                note = f"{NOT_COMPUTED}{', '.join(missing)}"
                record.judge(claim, quantity.quantity, None, view.experiment, note)
        return
    judge_number(record, view, config)
    judge_length(record, view, config)


def score_rows(view: View, config: Config) -> list[dict[str, Any]]:
    """AUC, DARE's advantage and NDCG of retrieval, one row per point and model; rules have the NDCG alone."""
    rows = []
    sweeps = [("K", k, k, config.history) for k in numbers(config.retrieved)]
    sweeps += [("N", n, config.top_k, n) for n in view.lengths]
    for varied, at, k, n in sweeps:
        claimed = view.replicates.get(point(CLAIMED, k, n))
        for model in [*config.model_names, *QUALITY_RULES]:
            values = view.replicates.get(point(model, k, n))
            lead = None if claimed is None or values is None or model == CLAIMED else claimed - values
            row: dict[str, Any] = {"log": view.experiment.name, "varied": varied, "K": k, "N": n, "model": model}
            row |= _columns("AUC", values)
            row |= _columns("DARE minus it", lead)
            row |= _columns("NDCG", view.quality[point(model, k, n)])
            row["best rule"] = view.rules[n][1]
            row["targets with so long a history"] = share_known(view.experiment, at) if varied == "N" else None
            rows.append(row)
    return rows


def _columns(name: str, replicates: Replicates | None) -> dict[str, float | None]:
    """A statistic with its interval as columns; nothing where there is none."""
    if replicates is None:
        return columns(name, None, None, None)
    found = interval(replicates)
    return columns(name, found.estimate, found.low, found.high)


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
        quality = retrieval_quality(experiment, config, runs)
        view = View(experiment, lengths, auc_table(experiment, probabilities), quality)
        view.rules |= {n: best_rule(experiment, n) for n in {config.history, *lengths}}
        judge(record, view, config)
        scores += score_rows(view, config)
        views.append(view)
    record.tables["scores"] = scores
    record.write()
    return Result(config, record, views)


def _draw(axis: Axes, rows: list[dict[str, Any]], varied: str, value: str) -> None:
    """A column against K or N, one line per model or rule, with its interval as a band."""
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
    """AUC, DARE's advantage, and NDCG of retrieval, against K or N: one row of panels per log."""
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
