"""Tables, figures with alt text and claim boxes. Each has a plain text form, which notebooks store, and an
HTML form for the book."""

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
    """The colour of a model (seaborn's colour-blind palette); grey for names without one of their own."""
    return PALETTE.get(name, (0.4, 0.4, 0.4))


def style() -> None:
    """Set the figure style of the whole book; the ground is white, so that figures can be read in dark mode too."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    plt.rcParams.update({"figure.dpi": 110, "savefig.dpi": 130, "figure.constrained_layout.use": True})


class Shown:
    """Something with a text form and an HTML form, which Jupyter chooses from."""

    def __init__(self, text: str, html_text: str) -> None:
        self.text = text
        self.html = html_text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def together(*parts: Shown) -> Shown:
    """Several shown things, one below the other."""
    return Shown("\n\n".join(part.text for part in parts), "".join(part.html for part in parts))


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
    """A value as text: numbers as `dare_core.report.claims.number` writes them, a dash for none."""
    if isinstance(value, float):
        return number(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "–" if value is None else str(value)


def _is_number(value: Any) -> bool:
    """Whether a value is a number, an interval or missing: such columns are aligned right and never broken."""
    if isinstance(value, str):
        return not value or (value[0] in "[-.0123456789" and value[-1] == "]")
    return value is None or isinstance(value, int | float)


def with_intervals(line: Mapping[str, Any]) -> dict[str, Any]:
    """A row with a number and its bounds (`X`, `X, low`, `X, high`) joined in one column, `X [95 %]`.

    >>> with_intervals({"model": "DARE", "AUC": 0.75, "AUC, low": 0.7, "AUC, high": 0.8})
    {'model': 'DARE', 'AUC [95 %]': '0.7500 [0.7000, 0.8000]'}
    """
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
    """A table from rows with the same keys; numbers are aligned right, each with its interval (`with_intervals`).

    >>> table([{"model": "DARE", "AUC": 0.75}, {"model": "TWIN", "AUC": None}], "Test scores")
    Test scores
    model  AUC
    DARE   0.7500
    TWIN   –
    """
    if not rows:
        return Shown(f"{caption}: nothing to show", f"<p>{html.escape(caption)}: nothing to show</p>")
    rows = [with_intervals(row) for row in rows]
    columns = list(rows[0])
    lines = [columns, *([cell(row.get(column)) for column in columns] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    padded = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in lines]
    kinds = [
        "number" if all(_is_number(row.get(column)) for row in rows) else "short" if width <= SHORT else "text"
        for column, width in zip(columns, widths, strict=True)
    ]
    head, *body = (list(zip(line, kinds, strict=True)) for line in lines)
    return Shown(
        "\n".join(([caption] if caption else []) + padded),
        f'<div class="study-table">{_html_table(head, "".join(_html_row(line, "td") for line in body), caption)}</div>',
    )


def _html_row(cells: Sequence[tuple[str, str]], tag: str) -> str:
    """A row of texts, each with its style class ("" for none)."""
    parts = (
        f'<{tag} class="{kind}">{html.escape(text)}</{tag}>' if kind else f"<{tag}>{html.escape(text)}</{tag}>"
        for text, kind in cells
    )
    return f"<tr>{''.join(parts)}</tr>"


def _html_table(head: Sequence[tuple[str, str]], body: str, caption: str = "") -> str:
    """A table from its titles, each with its style class, and the HTML of its rows."""
    heading = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return f'<table class="table">{heading}<thead>{_html_row(head, "th")}</thead><tbody>{body}</tbody></table>'


def describe(measured: LedgerRow) -> str:
    """The basis of a ledger row: kind of log, profile, training samples, seeds or worlds, competence."""
    parts = [measured.kind, measured.profile]
    if measured.training_samples:
        parts.append(f"{measured.training_samples:,} training samples")
    count, what = (measured.worlds, "world") if measured.worlds else (measured.seeds, "seed")
    if count:
        parts.append(f"{count} {what}{'s' if count != 1 else ''}")
    if measured.competence is not None:
        parts.append(f"competence {measured.competence:.2f}")
    return ", ".join(part for part in parts if part)


MEASURED = (("log", ""), ("paper (quoted)", "number"), ("ours [95 %]", "number"), ("verdict", ""))
"""Titles of the columns of `_measured_cells`, with their style classes."""


def style_class(verdict: str) -> str:
    """A verdict as a class of the style sheets."""
    return verdict.replace(",", "").replace(" ", "-")


def _measured_cells(r: LedgerRow) -> str:
    """The cells of a ledger row from the log on: log, the paper's number, ours with interval, the verdict."""
    ours = "–" if r.ours is None else f"{number(r.ours)}<br><small>[{number(r.low)}, {number(r.high)}]</small>"
    if r.rebuilt is not None:
        ours += f"<br><small>this build {number(r.rebuilt)}</small>"
    log = f"{html.escape(r.log or '–')}<br><small>{html.escape(describe(r))}</small>"
    note = f"<br><small>{html.escape(r.note)}</small>" if r.note else ""
    return (
        f'<td>{log}</td><td class="number">{number(r.paper)}</td><td class="number">{ours}</td>'
        f'<td class="verdict {style_class(r.verdict)}">{MARKS[r.verdict]} {r.verdict}{note}</td>'
    )


def _titled(name: str, claim: Claim, mark: str = "") -> str:
    """A claim's name in bold, its words and where the paper makes it."""
    words = f"{html.escape(claim.claim)} <small>({html.escape(claim.source)})</small>"
    return f"<strong>{name}{mark}</strong> {words}"


def claim_box(claims: Mapping[str, Claim], rows: Sequence[LedgerRow]) -> Shown:
    """The box that opens a chapter: claims, and per quantity and log the paper's number, ours with its interval and the
    verdict. The primary quantity of a claim is in bold; it alone is counted."""
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
            lines.append(f"<tr><td>{what}<br><small>claim: {side} {entry.null:g}</small></td>{_measured_cells(r)}</tr>")
        parts.append(f"<p>{_titled(name, claim, '.')}</p>{_html_table((('quantity', ''), *MEASURED), ''.join(lines))}")
    return Shown("\n".join(text), f'<div class="claim-box study-table">{"".join(parts)}</div>')
