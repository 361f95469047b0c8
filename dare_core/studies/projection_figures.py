"""Figures and tables of the Projections chapter, from its tables: those just computed, or the stored ones."""

from collections.abc import Sequence
from typing import Any

import polars as pl
from matplotlib import pyplot as plt
from matplotlib.lines import Line2D

from dare_core.models.embeddings import FIELDS
from dare_core.report.show import PALETTE, Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table, stored_result
from dare_core.studies.projection_settings import INITIALS
from dare_core.studies.projections import BEST, PROJECTION, SHARED, TWIN, Result

Rows = Sequence[dict[str, Any]]
CHAPTER = "projections"
LINES = dict(zip(FIELDS, ("-", "--", ":"), strict=True))
"""A field keeps its line style."""


def unique(rows: Rows, column: str) -> list[Any]:
    """The values of a column in order of appearance."""
    return list(dict.fromkeys(row[column] for row in rows))


def stored_rows(name: str) -> Rows:
    """A table of the stored full result; empty where there is none."""
    content = stored_result(CHAPTER)
    return content["tables"][name] if content else []


def variants_figure(rows: Rows) -> Shown:
    """Figure 4c for every model of `variants` rows: test AUC with interval, shared (dots) and best (diamonds)."""
    if not rows:
        return table(rows, "Every variant, stored")
    style()
    logs = unique(rows, "log")
    models = unique(rows, "model")
    first = {row["model"]: row["AUC"] for row in rows if (row["log"], row["setting"]) == (logs[0], SHARED)}
    order = sorted(models, key=lambda model: first[model])
    drawn, axes = plt.subplots(
        1, len(logs), figsize=(3.2 + 3.6 * len(logs), 1.6 + 0.36 * len(models)), squeeze=False, sharey=True
    )
    parts = []
    for axis, log in zip(axes[0], logs, strict=True):
        of = {(row["setting"], row["model"]): row for row in rows if row["log"] == log}
        for at, model in enumerate(order):
            for setting, shift, mark, face in ((SHARED, 0.15, "o", colour(model)), (BEST, -0.15, "D", "white")):
                row = of[setting, model]
                axis.plot([row["AUC, low"], row["AUC, high"]], [at + shift] * 2, color=colour(model), lw=1.8)
                axis.plot(row["AUC"], at + shift, mark, color=colour(model), mfc=face, ms=6)
        for setting, line in ((SHARED, ":"), (BEST, "--")):
            axis.axvline(of[setting, TWIN]["AUC"], color=colour(TWIN), ls=line, lw=1.2)
        axis.set_yticks(range(len(order)), order, fontsize=8.5)
        axis.set(title=log, xlabel="test AUC, 95 % interval")
        above = [
            sum(of[setting, m]["AUC"] > of[setting, TWIN]["AUC"] for m in models if m not in (TWIN, "DARE"))
            for setting in (SHARED, BEST)
        ]
        parts.append(
            f"{log}: TWIN {of[SHARED, TWIN]['AUC']:.3f} and {of[BEST, TWIN]['AUC']:.3f}, {PROJECTION} "
            f"{of[SHARED, PROJECTION]['AUC']:.3f} and {of[BEST, PROJECTION]['AUC']:.3f}; "
            f"{above[0]} and {above[1]} of {len(models) - 2} decouplings of one table lie above TWIN"
        )
    handles = [
        Line2D([], [], marker="o", color="0.3", label="shared setting"),
        Line2D([], [], marker="D", color="0.3", mfc="white", label="its own best setting"),
        Line2D([], [], color=colour(TWIN), ls=":", label="TWIN, shared setting"),
        Line2D([], [], color=colour(TWIN), ls="--", label="TWIN, its best setting"),
    ]
    drawn.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8.5)
    return figure(drawn, "Test AUC at the shared and at the best setting. " + ". ".join(parts) + ".")


def show_variants(result: Result) -> Shown:
    """The models trained here, as a figure."""
    return variants_figure(result.record.tables["variants"])


def show_variants_table(result: Result) -> Shown:
    """The models trained here, as a table."""
    return table(result.record.tables["variants"], "Test AUC at both settings, and the paired difference from TWIN")


def show_stored_variants(result: Result) -> Shown:
    """Every variant, as a figure, from the stored result."""
    return variants_figure(stored_rows("variants"))


def show_stored_variants_table(result: Result) -> Shown:
    """Every variant, as a table, from the stored result."""
    return show_stored_table(CHAPTER, "variants", "Every variant at both settings")


def show_search(result: Result) -> Shown:
    """Validation AUC of every setting tried, the chosen one marked: this run's search, else the stored one."""
    own = result.record.tables.get("search")
    rows = own if own is not None else stored_rows("search")
    caption = (
        "Validation AUC (mean over three seeds or worlds) by learning rate and initial values of the maps; * chosen"
    )
    lines = []
    for log in unique(rows, "log"):
        for model in unique(rows, "model"):
            line = {"log": log, "model": model}
            for row in rows:
                if (row["log"], row["model"]) == (log, model):
                    initial = row["initial values of maps"] or "published"
                    mark = " *" if row["chosen"] else ""
                    line[f"{row['learning rate']:g} {initial}"] = f"{row['validation AUC']:.4f}{mark}"
            lines.append(line)
    settings = [f"{rate:g} {initial}" for rate in unique(rows, "learning rate") for initial in INITIALS]
    columns = ["log", "model", *settings]
    return table([{c: line.get(c, "–") for c in columns} for line in lines], caption)


def show_cost(result: Result) -> Shown:
    """What the maps cost: parameters, multiplications, time."""
    return table(result.record.tables["cost"], f"Cost beside TWIN's at size {result.config.size}")


def show_stored_cost(result: Result) -> Shown:
    """What the maps of every variant cost, from the stored result."""
    return show_stored_table(CHAPTER, "cost", "Cost of every variant")


def show_motion(result: Result) -> Shown:
    """Norm, effective rank and cosine of the maps over training, one row of panels per log and setting."""
    if not result.record.tables["motion"]:
        return table([], "How the maps move (follow_maps=true)")
    style()
    motion = pl.DataFrame(result.record.tables["motion"])
    groups = motion.select("log", "setting", "described").unique(maintain_order=True).rows()
    drawn, axes = plt.subplots(len(groups), 3, figsize=(10.5, 2.7 * len(groups)), squeeze=False, sharex="row")
    parts = []
    for (norm, rank, angle), (log, setting, described) in zip(axes, groups, strict=True):
        own = motion.filter(pl.col("log") == log, pl.col("setting") == setting)
        own = own.drop("log", "setting", "described", "side")
        means = own.group_by("step", "field", maintain_order=True).mean()  # over target and behaviour
        for field, line in LINES.items():
            of = means.filter(pl.col("field") == field)
            for module in ("attention", "representation"):
                norm.plot(of["step"], of[f"{module} norm"], color=PALETTE[module], ls=line)
                rank.plot(of["step"], of[f"{module} effective rank"], color=PALETTE[module], ls=line)
            angle.plot(of["step"], of["cosine"], color="0.2", ls=line)
        norm.set_ylabel("norm of a map")
        rank.set_ylabel("effective rank")
        for axis in (norm, rank):
            axis.set_ylim(0, 1.08 * axis.dataLim.y1)
        angle.set(ylabel="cosine", ylim=(-1.05, 1.05))
        angle.axhline(0, color="0.6", lw=0.8)
        rank.set_title(f"{log}, {setting} setting: {described}", fontsize=10)
        for axis in (norm, rank, angle):
            axis.set_xlabel("iteration")
        last = means.filter(pl.col("step") == means["step"].max())
        ranks = last.select(f"{module} effective rank" for module in ("attention", "representation")).to_numpy().mean(0)
        parts.append(
            f"{log}, {setting}: cosine at the end "
            + ", ".join(f"{field} {value:.2f}" for field, value in last.select("field", "cosine").rows())
            + "; effective rank of attention's maps {:.1f}, of representation's {:.1f}".format(*ranks)
        )
    handles = [Line2D([], [], color=PALETTE[m], label=m) for m in ("attention", "representation")]
    handles += [Line2D([], [], color="0.2", ls=line, label=field) for field, line in LINES.items()]
    drawn.legend(handles=handles, loc="outside lower center", ncols=5, fontsize=9)
    return figure(drawn, f"Maps of {PROJECTION} over training, seed 1. " + ". ".join(parts) + ".")


def show_capacity(result: Result) -> Shown:
    """Parameters of a map for each id that it serves, on a logarithmic axis."""
    style()
    rows = sorted(result.record.tables["capacity"], key=lambda row: row["parameters per id"])
    drawn, axis = plt.subplots(figsize=(9, 1.2 + 0.34 * len(rows)))
    marks = {"recommendation": ("o", "0.2"), "language": ("s", "white")}
    for at, row in enumerate(rows):
        mark, face = marks[row["kind"]]
        axis.plot(row["parameters per id"], at, mark, color="0.2", mfc=face, ms=8)
        size = f"{row['size']:,}"
        axis.annotate(
            f"{size} x {size} for {row['ids']:,}",
            (row["parameters per id"], at),
            xytext=(9, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axis.grid(axis="y", visible=False)
    axis.axvline(1, color="0.6", lw=0.9)
    axis.set_yticks(range(len(rows)), [row["where"] for row in rows], fontsize=9)
    axis.set(xscale="log", xlabel="parameters of one map for each id that it serves")
    axis.set_xlim(rows[0]["parameters per id"] / 2, rows[-1]["parameters per id"] * 60)
    for kind, (mark, face) in marks.items():
        axis.plot([], [], mark, color="0.2", mfc=face, label=kind)
    axis.legend(loc="lower right", fontsize=9)
    spans = []
    for kind in marks:
        of = [row["parameters per id"] for row in rows if row["kind"] == kind]
        spans.append(f"{kind} from {min(of):.2g} to {max(of):.2g}")
    return figure(drawn, f"Parameters of one projection map for each id that it serves: {', '.join(spans)}.")


def show_capacity_table(result: Result) -> Shown:
    """The numbers of the capacity figure, with their sources."""
    return table(result.record.tables["capacity"], "Parameters of one map beside the ids that it serves")


def show_budget(result: Result) -> Shown:
    """TWIN with wider tables beside DARE."""
    return table(result.record.tables["budget"], "The same number of table parameters")
