"""What a chapter shows: tables, figures with alt text, claim boxes. Each has a plain text form, which is
what notebooks store, and an HTML form for the book."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.figure import Figure as MatplotlibFigure

from dare_core.report.claims import Claim, LedgerRow, number, verdict_line

_COLOURS = sns.color_palette("colorblind", 10)
PALETTE: dict[str, Any] = {
    "DARE": _COLOURS[0],
    "TWIN": _COLOURS[1],
    "DIN": _COLOURS[2],
    "TWIN-4E": _COLOURS[3],
    "TWIN (w/ proj.)": _COLOURS[4],
    "SDIM": _COLOURS[5],
    "ETA": _COLOURS[6],
    "attention": _COLOURS[9],
    "representation": _COLOURS[3],
    "rule": _COLOURS[7],
    "with": _COLOURS[4],  # the language models of the chapter on capacity: as TWIN (w/ proj.), TWIN
    "without": _COLOURS[1],
    "without, wider MLP": _COLOURS[9],
}
"""A model keeps its colour through the book (seaborn's colour-blind palette)."""
MARKS: Mapping[str, str] = {
    "holds": "✔",
    "holds, smaller": "↗",
    "contradicted": "✘",
    "absent": "○",
    "undecided": "?",
    "cannot be tested here": "–",
    "not studied yet": "…",
}


SHORT = 42
"""Columns of text no longer than this are not broken over lines."""


def colour(name: str) -> Any:
    """The colour of a model; grey for what has none of its own."""
    return PALETTE.get(name, (0.4, 0.4, 0.4))


def style() -> None:
    """Figure style of the whole book; white ground, so that figures can be read in dark mode too."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 130, "figure.constrained_layout.use": True})


class Shown:
    """Something with a text form and an HTML form."""

    def __init__(self, text: str, html_text: str) -> None:
        self.text = text
        self.html = html_text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def figure(drawn: MatplotlibFigure, alt: str) -> Shown:
    """A figure with alt text that states what is seen; the text form is the alt text."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="png")
    plt.close(drawn)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Shown(
        f"[figure] {alt}",
        f'<figure class="study-figure"><img alt="{html.escape(alt)}" src="data:image/png;base64,{data}"/></figure>',
    )


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, float):
        return number(value) if value == value else "–"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def _is_number(value: Any) -> bool:
    """A number, an interval or nothing: what stands to the right, and is not broken over lines."""
    if isinstance(value, str):
        return not value or (value[0] in "[-.0123456789" and value[-1] == "]")
    return value is None or isinstance(value, int | float)


def with_intervals(line: Mapping[str, Any]) -> dict[str, Any]:
    """A row in which a number and its bounds (`X`, `X, low`, `X, high`) stand in one column, `X [95 %]`."""
    joined: dict[str, Any] = {}
    for column, value in line.items():
        if f"{column}, low" in line:
            low, high = line[f"{column}, low"], line[f"{column}, high"]
            known = value is not None and value == value
            joined[f"{column} [95 %]"] = f"{number(value)} [{number(low)}, {number(high)}]" if known else None
        elif not column.endswith((", low", ", high")):
            joined[column] = value
    return joined


def table(rows: Sequence[Mapping[str, Any]], caption: str = "") -> Shown:
    """A table from rows with the same keys; numbers to the right, each with its interval (`with_intervals`)."""
    if not rows:
        return Shown(f"{caption}: nothing to show", f"<p>{html.escape(caption)}: nothing to show</p>")
    rows = [with_intervals(row) for row in rows]
    columns = list(rows[0])
    cells = [[cell(r.get(column)) for column in columns] for r in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    lines = ["  ".join(column.ljust(width) for column, width in zip(columns, widths, strict=True))]
    lines += ["  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) for line in cells]
    kinds = [
        "number" if all(_is_number(r.get(column)) for r in rows) else "short" if width <= SHORT else "text"
        for column, width in zip(columns, widths, strict=True)
    ]

    def tags(values: Sequence[str], tag: str) -> str:
        return "".join(
            f'<{tag} class="{kind}">{html.escape(value)}</{tag}>' for kind, value in zip(kinds, values, strict=True)
        )

    body = "".join(f"<tr>{tags(line, 'td')}</tr>" for line in cells)
    heading = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    text = "\n".join(([caption] if caption else []) + [line.rstrip() for line in lines])
    return Shown(
        text,
        f'<div class="study-table"><table class="table">{heading}<thead><tr>{tags(columns, "th")}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
    )


def verdict_class(measured: LedgerRow) -> str:
    """The verdict as the name of a style."""
    return measured.verdict.replace(",", "").replace(" ", "-")


def describe(measured: LedgerRow) -> list[str]:
    """What a ledger row rests on: kind of log, training samples, seeds or worlds, profile, competence."""
    parts = [measured.kind, measured.profile]
    if measured.training_samples:
        parts.append(f"{measured.training_samples:,} training samples")
    number_of, what = (measured.worlds, "world") if measured.worlds else (measured.seeds, "seed")
    if number_of:
        parts.append(f"{number_of} {what}{'s' if number_of != 1 else ''}")
    if measured.competence is not None:
        parts.append(f"competence {measured.competence:.2f}")
    return [part for part in parts if part]


def measured_cells(r: LedgerRow) -> str:
    """The cells of a ledger row from the log on: log, the paper's number, ours with interval, the verdict."""
    ours = "–" if r.ours is None else f"{number(r.ours)}<br><small>[{number(r.low)}, {number(r.high)}]</small>"
    if r.rebuilt is not None:
        ours += f"<br><small>this build {number(r.rebuilt)}</small>"
    log = f"{html.escape(r.log or '–')}<br><small>{html.escape(', '.join(describe(r)))}</small>"
    note = f"<br><small>{html.escape(r.note)}</small>" if r.note else ""
    return (
        f'<td>{log}</td><td class="number">{number(r.paper)}</td><td class="number">{ours}</td>'
        f'<td class="verdict {verdict_class(r)}">{MARKS[r.verdict]} {r.verdict}{note}</td>'
    )


def claim_box(claims: Mapping[str, Claim], rows: Sequence[LedgerRow]) -> Shown:
    """The box that opens a chapter: claim, the paper's number, ours with its interval, the verdict. The primary
    quantity of a claim is the one that is counted."""
    text: list[str] = []
    parts: list[str] = []
    for name in dict.fromkeys(r.claim for r in rows):
        claim = claims[name]
        text.append(f"{name}: {claim.claim} ({claim.source})")
        lines = []
        for r in sorted((r for r in rows if r.claim == name), key=lambda r: not r.primary):
            entry = claim.of(r.quantity)
            text.append(f"  {verdict_line(r)}")
            meaning = html.escape(entry.meaning)
            what = f"<strong>{meaning}</strong>" if r.primary else meaning
            side = "above" if entry.direction == "greater" else "below"
            lines.append(f"<tr><td>{what}<br><small>claim: {side} {entry.null:g}</small></td>{measured_cells(r)}</tr>")
        parts.append(
            f"<p><strong>{name}.</strong> {html.escape(claim.claim)} <small>({html.escape(claim.source)})</small></p>"
            '<table class="table"><thead><tr><th>quantity</th><th>log</th><th class="number">paper (quoted)</th>'
            '<th class="number">ours [95 %]</th><th>verdict</th></tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table>"
        )
    return Shown("\n".join(text), f'<div class="claim-box study-table">{"".join(parts)}</div>')
