"""Figures and tables of the Attention accuracy chapter, each drawn from the tables that are written as CSV."""

from typing import Any

import numpy as np
import polars as pl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from dare_core.evaluation.retrieval import RULES
from dare_core.models.zoo import MODELS
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table
from dare_core.studies.attention import Result

LINES = dict(zip(RULES, ("--", "-.", ":"), strict=True))
DRAWN = ("DARE", "TWIN", "DIN", "TWIN-4E")
"""Models that the figures draw; the tables hold all."""
NOT_JUDGED = "NDCG of retrieval (no target category passes least_samples, least_cell and most_thin)"
GAINS = {"information": "mutual information", "true relevance": "true relevance"}


def frame(result: Result, name: str) -> pl.DataFrame:
    """A table of the record."""
    return pl.DataFrame(result.record.tables[name], infer_schema_length=None)


def drawn_names(names: list[str]) -> list[str]:
    """Models that are drawn, then rules."""
    return [name for name in DRAWN if name in names] + [name for name in RULES if name in names]


def look(name: str) -> dict[str, Any]:
    """Colour and line of a model or rule."""
    return {"color": colour(name if name in MODELS else "rule"), "ls": LINES.get(name, "-"), "label": name}


def show_maps(result: Result) -> Shown:
    """Figure 8: mutual information beside learned attention, for the most frequent target categories."""
    style()
    data = frame(result, "maps")
    names = ["mutual information", *(name for name in DRAWN if name in data.columns)]
    targets = data.select("log", "target category").unique(maintain_order=True).rows()
    size = (2.05 * len(names) + 0.6, 2.3 * len(targets))
    drawn, axes = plt.subplots(len(targets), len(names), figsize=size, squeeze=False)
    parts = []
    for lines, (log, target) in zip(axes, targets, strict=True):
        rows = data.filter((pl.col("log") == log) & (pl.col("target category") == target))
        behaviours = rows["behaviour category"].unique(maintain_order=True).to_list()
        own = behaviours.index(target)
        shares = []
        for axis, name in zip(lines, names, strict=True):
            values = rows[name].to_numpy().reshape(len(behaviours), -1)
            axis.imshow(values, aspect="auto", cmap="viridis", interpolation="nearest")
            axis.grid(False)
            axis.set_title(name, fontsize=9)
            axis.set_yticks([own], ["own"] if name == names[0] else [""], fontsize=8)
            ticks = np.linspace(0, values.shape[1] - 1, 4).round().astype(int)
            axis.set_xticks(ticks, ticks + 1, fontsize=8)
            shares.append(f"{name} {values[own].sum() / values.sum():.0%}")
        lines[0].set_ylabel(f"{log}\ntarget {target}", fontsize=8)
        parts.append(f"{log}, target category {target}: {', '.join(shares)}")
    drawn.supxlabel("position (1 is the newest)", fontsize=9)
    return figure(
        drawn,
        "Heat maps of behaviour category by position, one row per target category: mutual information in the log, then "
        "the attention of each model. Share that lies on the target's own category: " + "; ".join(parts) + ".",
    )


def show_ndcg(result: Result) -> Shown:
    """Figure 9a: NDCG of retrieval at k = 1..K, by mutual information and by true relevance where it is known."""
    if not result.record.tables["curves"]:
        return table([], NOT_JUDGED)
    style()
    data = frame(result, "curves").filter(pl.col("gain").is_in(list(GAINS)))
    panels = data.select("log", "gain").unique(maintain_order=True).rows()
    drawn, axes = plt.subplots(1, len(panels), figsize=(3.9 * len(panels) + 2.2, 3.9), squeeze=False)
    parts = []
    for axis, (log, gain) in zip(axes[0], panels, strict=True):
        rows = data.filter((pl.col("log") == log) & (pl.col("gain") == gain))
        last = []
        for name in drawn_names(rows["model or rule"].unique().to_list()):
            line = rows.filter(pl.col("model or rule") == name)
            axis.plot(line["k"], line["NDCG"], **look(name))
            last.append(f"{name} {line['NDCG'][-1]:.2f}")
        axis.set(title=f"{log}: {GAINS[gain]}", xlabel="k", ylim=(0, 1))
        parts.append(f"{log} by {GAINS[gain]}: {', '.join(last)}")
    axes[0][0].set_ylabel("NDCG at k")
    drawn.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure(drawn, "NDCG of retrieval by k, models solid, rules broken. At the last k, " + "; ".join(parts) + ".")


def show_retrieval(result: Result) -> Shown:
    """NDCG at K with intervals, and what A2 and A4 are judged by."""
    k = result.config.top_k
    return table(result.record.tables["retrieval"], f"Retrieval at k = {k}, mean over test samples and seeds")


def show_closeness(result: Result) -> Shown:
    """How near each model's attention is to relevance."""
    return table(result.record.tables["closeness"], "Learned attention beside relevance, mean over target categories")


def show_kept(result: Result) -> Shown:
    """How many of the behaviours of highest gain are retrieved, by age and category match."""
    style()
    data = frame(result, "kept")
    logs = data["log"].unique(maintain_order=True).to_list()
    drawn, axes = plt.subplots(len(logs), 2, figsize=(9.5, 3.1 * len(logs)), squeeze=False, sharey=True)
    parts = []
    for lines, log in zip(axes, logs, strict=True):
        for axis, match in zip(lines, ("same category", "other category"), strict=True):
            rows = data.filter((pl.col("log") == log) & (pl.col("behaviours") == match))
            first = []
            for name in drawn_names(rows["model or rule"].unique().to_list()):
                line = rows.filter(pl.col("model or rule") == name)
                axis.plot(line["positions"], line["share kept"].cast(pl.Float64), marker="o", ms=3, **look(name))
                total = int(line["correct, all seeds"].sum())
                if name in MODELS and total:
                    kept = float((line["share kept"].fill_null(0) * line["correct, all seeds"]).sum()) / total
                    first.append(f"{name} {kept:.0%}")
            axis.set_title(f"{log}: {match}", fontsize=10)
            axis.set(xlabel="position", ylim=(-0.03, 1.05))
            axis.tick_params(axis="x", labelsize=8)
            parts.append(f"{log}, {match}: {', '.join(first) or 'none'}")
        lines[0].set_ylabel("share kept")
    drawn.legend(*axes[0][0].get_legend_handles_labels(), loc="outside right center", fontsize=8)
    return figure(
        drawn,
        "Share of the behaviours of highest gain that are retrieved, by position, for behaviours of the target's "
        "category and of others. Over all positions: " + "; ".join(parts) + ".",
    )


def draw_case(axis: Axes, rows: pl.DataFrame, names: list[str]) -> None:
    """One case: one row of marks per model, dark where the behaviour is of the target's category."""
    target = rows["target category"][0]
    same = rows["behaviour category"].to_numpy() == target
    position = rows["position"].to_numpy()
    axis.plot(position[same], np.zeros(same.sum()), "|", color="black", ms=9, mew=1.6)
    for at, name in enumerate(names, 1):
        taken = rows[name].to_numpy() > 0
        axis.plot(position[taken & ~same], np.full((taken & ~same).sum(), at), "|", color="0.6", ms=7, mew=1.0)
        axis.plot(position[taken & same], np.full((taken & same).sum(), at), "|", color=colour(name), ms=11, mew=2.2)
    axis.set_yticks(range(len(names) + 1), ["in the history", *names], fontsize=7)
    axis.set(ylim=(len(names) + 0.6, -0.6))
    axis.set_title(
        f"{rows['log'][0]}, user {rows['user'][0]} ({rows['case'][0]}, Jaccard {rows['Jaccard'][0]:.2f})", fontsize=8
    )
    axis.tick_params(axis="x", labelsize=8)


def show_cases(result: Result) -> Shown:
    """Figures 9b-c and E.4: what is retrieved for single users, chosen by a rule."""
    if not result.record.tables["cases"]:
        return table([], "Cases (they need DARE and TWIN)")
    style()
    data = frame(result, "cases")
    names = [name for name in DRAWN if name in data.columns]
    logs = data["log"].unique(maintain_order=True).to_list()
    found = data.select("log", "case", "user").unique(maintain_order=True).rows()
    keys = {log: [(case, user) for own, case, user in found if own == log] for log in logs}
    most = max(len(cases) for cases in keys.values())
    drawn, axes = plt.subplots(
        most, len(logs), figsize=(1.5 + 4.8 * len(logs), 1.35 * most), squeeze=False, sharex="col"
    )
    parts = []
    for column, log in enumerate(logs):
        for at, (case, user) in enumerate(keys[log]):
            rows = data.filter((pl.col("log") == log) & (pl.col("case") == case) & (pl.col("user") == user))
            draw_case(axes[at][column], rows, names)
            same = rows.filter(pl.col("behaviour category") == pl.col("target category"))
            shares = ", ".join(f"{name} {int(same[name].sum())} of {int(rows[name].sum())}" for name in names)
            parts.append(f"{log}, user {user} ({case}): {shares}")
        axes[-1][column].set_xlabel("position (1 is the newest)")
    return figure(
        drawn,
        "Positions of the retrieved behaviours for single users; coloured marks are of the target's category, grey "
        "ones are not, black ones show all of the target's category. Retrieved ones of the target's category: "
        + "; ".join(parts)
        + ".",
    )


def show_priors(result: Result) -> Shown:
    """The two priors of section 3.4."""
    return table(result.record.tables["priors"], "Relevance between categories: symmetry, and the own category first")


def show_controls(result: Result) -> Shown:
    """Worlds in which attention must learn nothing; the stored ones where none were asked for."""
    if not result.record.tables["controls"]:
        return show_stored_table("attention", "controls", "Controls")
    return table(result.record.tables["controls"], "Controls: worlds in which attention must learn nothing")


def show_stored(result: Result) -> Shown:
    """Every model that searches, from the stored full result."""
    return show_stored_table("attention", "retrieval", "Retrieval of every model that searches")
