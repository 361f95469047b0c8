"""Projection capacity in language: a character-level GPT with and without query, key and value maps (claim P3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import pyplot as plt

from dare_core.language.gpt import KINDS
from dare_core.language.runs import LanguageStore
from dare_core.language.text import Text, open_text
from dare_core.language.training import NANOGPT, NANOGPT_LOSS, STRETCH
from dare_core.report.claims import FEWEST_SEEDS, Basis
from dare_core.report.record import ChapterRecord
from dare_core.report.show import Shown, colour, figure, style, table
from dare_core.report.stored import show_stored_table, stored_result
from dare_core.studies import settings
from dare_core.studies.language_comparison import LARGE, WITH, Comparison

MARKERS = dict(zip(KINDS, "osD", strict=True))
LINES = dict(zip(KINDS, ("-", "-", "--"), strict=True))
Rows = Sequence[Mapping[str, Any]]

Config = settings.LanguageConfig


@dataclass
class Result:
    """Everything that the chapter shows."""

    config: Config
    record: ChapterRecord


def run(config: Config) -> Result:
    """Train every size with and without maps and with the wider MLP, and judge P3."""
    text = open_text(config.text)
    store = LanguageStore()
    record = ChapterRecord("language", config, store)
    record.logs[text.name] = {"name": text.name, "kind": text.kind, "fingerprint": text.fingerprint}
    comparison = Comparison.of({key: store.get(run_config, text) for key, run_config in config.run_configs()})
    judge(record, config, text, comparison)
    record.tables |= {
        "losses": comparison.loss_rows(),
        "gaps": comparison.gap_rows(),
        "shape": comparison.shape_rows(),
        "curves": comparison.curve_rows(),
        "parameters": comparison.parameter_rows(),
        "text": text_rows(text, comparison.stretches),
    }
    if config.nanogpt != "none":
        record.tables["nanogpt"] = nanogpt_rows(record, store)
    record.write()
    return Result(config, record)


def judge(record: ChapterRecord, config: Config, text: Text, comparison: Comparison) -> None:
    """Add P3's two rows; nothing is judged of trainings that ended before their loss was flat."""
    found = comparison.claims()
    basis = Basis(log=text.name, kind=text.kind, fingerprint=text.fingerprint, seeds=config.seeds)
    note = f"sizes {config.sizes}; {comparison.flat} of {len(comparison.runs)} trainings flat before their final decay"
    unfinished = comparison.flat < len(comparison.runs) and config.seeds >= FEWEST_SEEDS
    blocked = "the models have not learned: not every loss was flat" if unfinished else ""
    for quantity, sizes in (("gap_small_minus_large", "on both sides of"), ("loss_gap_above_16", "above")):
        reason = note if quantity in found else f"needs sizes {sizes} {LARGE}"
        record.judge_on("P3", quantity, found.get(quantity), basis, reason, blocked=blocked)


def text_rows(text: Text, stretches: int) -> list[dict[str, Any]]:
    """What the text is."""
    return [
        {"what": "text", "value": f"{text.name} ({text.kind})"},
        {"what": "characters for training", "value": f"{len(text.training):,}"},
        {"what": "characters held out", "value": f"{len(text.validation):,}"},
        {"what": "different characters", "value": str(len(text.characters))},
        {"what": "stretches evaluated", "value": f"{stretches} of {STRETCH:,} characters"},
        {"what": "content hash", "value": text.fingerprint},
    ]


def nanogpt_rows(record: ChapterRecord, store: LanguageStore) -> list[dict[str, Any]]:
    """Train nanoGPT's own setting for a CPU on tiny shakespeare and compare its loss with the published one."""
    text = open_text("tiny_shakespeare")
    record.logs[text.name] = {"name": text.name, "kind": text.kind, "fingerprint": text.fingerprint}
    run_config = NANOGPT
    found = store.get(run_config, text)
    return [
        {
            "setting": "cpu",
            "text": text.name,
            "layers": run_config.model.layers,
            "heads": run_config.model.heads,
            "size": run_config.model.size,
            "iterations": run_config.training.iterations,
            "parameters": found.parameters["all"],
            "loss": found.loss,
            "published (quoted)": NANOGPT_LOSS,
            "difference": found.loss - NANOGPT_LOSS,
            "lowest while training": min(line.validation_loss for line in found.history),
            "seconds": round(found.seconds),
        }
    ]


def draw_losses(losses: Rows, gaps: Rows, what: str) -> Shown:
    """Figure 5: validation loss by embedding size, and what is lost without maps."""
    style()
    drawn, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.9))
    sizes = sorted({line["size"] for line in losses})
    spread = dict(zip(KINDS, (0.97, 1.0, 1.03), strict=True))  # so that intervals do not cover one another
    parts = []
    for axis, rows, value in ((left, losses, "loss"), (right, gaps, "minus with")):
        for kind in dict.fromkeys(line["maps"] for line in rows):
            own = sorted((line for line in rows if line["maps"] == kind), key=lambda line: line["size"])
            at = np.array([line["size"] for line in own]) * spread[kind]
            values = np.array([[line[name] for name in (value, f"{value}, low", f"{value}, high")] for line in own])
            errors = np.abs(values[:, 1:] - values[:, :1]).T
            axis.errorbar(
                at, values[:, 0], errors, color=colour(kind), label=kind, marker=MARKERS[kind], ls=LINES[kind], ms=5
            )
            shown = ", ".join(f"{line['size']}: {line[value]:.3f}" for line in own)
            parts.append(f"{kind}{'' if axis is left else ' minus with'} ({shown})")
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.axvline(LARGE, color="0.7", lw=1, ls=":")
        axis.set_xlabel("embedding size")
    right.axhline(0, color=colour(WITH), lw=1.5)
    left.set(ylabel="validation loss, nats per character", title="query, key, value maps")
    right.set(ylabel="loss minus loss with maps", title="gap to the model with maps")
    left.legend(fontsize=9)
    right.legend(fontsize=9)
    return figure(drawn, f"{what}: validation loss by embedding size, then gaps. " + "; ".join(parts) + ".")


def show_losses(result: Result) -> Shown:
    """Loss and gap by size, as trained here."""
    tables = result.record.tables
    return draw_losses(tables["losses"], tables["gaps"], f"Profile {result.config.profile}")


def show_stored_losses(result: Result) -> Shown:
    """Loss and gap by size, from the stored full result."""
    content = stored_result("language")
    if content is None:
        return show_stored_table("language", "losses", "Losses")
    return draw_losses(content["tables"]["losses"], content["tables"]["gaps"], "Stored full result")


def show_stored(result: Result, name: str, what: str) -> Shown:
    """A table of the stored full result."""
    return show_stored_table("language", name, what)


def draw_curves(rows: Rows, what: str) -> Shown:
    """Validation loss by iteration: one panel per size, one line per seed."""
    style()
    sizes = list(dict.fromkeys(line["size"] for line in rows))
    columns = min(4, len(sizes))
    lines = -(-len(sizes) // columns)
    drawn, axes = plt.subplots(lines, columns, figsize=(9.5, 3.1 * lines), squeeze=False)
    for axis in axes.flat[len(sizes) :]:
        axis.remove()
    parts = []
    for axis, size in zip(axes.flat, sizes, strict=False):
        for kind in KINDS:
            ends = []
            for seed in sorted({line["seed"] for line in rows}):
                own = [r for r in rows if (r["size"], r["maps"], r["seed"]) == (size, kind, seed)]
                axis.plot(
                    [line["iteration"] for line in own],
                    [line["validation loss"] for line in own],
                    color=colour(kind),
                    ls=LINES[kind],
                    lw=1.3,
                    label=kind if seed == 1 else None,
                )
                ends.append(own[-1]["validation loss"])
            parts.append(f"size {size}, {kind}: {np.mean(ends):.3f} at the end")
        axis.set(title=f"size {size}", xlabel="iteration")
        axis.locator_params(axis="x", nbins=3)
    for line in axes:
        line[0].set_ylabel("validation loss")
    axes[0, 0].legend(fontsize=8)
    return figure(drawn, f"{what}: validation loss by iteration, one line per seed. " + "; ".join(parts) + ".")


def show_curves(result: Result) -> Shown:
    """Learning curves of the trainings here."""
    return draw_curves(result.record.tables["curves"], f"Profile {result.config.profile}")


def show_stored_curves(result: Result) -> Shown:
    """Learning curves of the stored full result."""
    content = stored_result("language")
    if content is None:
        return show_stored_table("language", "curves", "Learning curves")
    return draw_curves(content["tables"]["curves"], "Stored full result")


def show_table(result: Result, name: str, caption: str) -> Shown:
    """One of the record's tables."""
    return table(result.record.tables[name], caption)
