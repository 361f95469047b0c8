"""Tables and figures with alt text; each has a plain text form, which notebooks store, and an HTML form for pages."""

import base64
import html
import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
import seaborn as sns
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure as MatplotlibFigure

from dare_core.report.ledger import number

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
SMALLEST = 9
"""Least size of text in figures, in points: 12 pixels of a page."""
WIDTH = 9
"""Width of a figure of two panels, in inches: that of a page's text."""
PHONE = 3.9
"""Width of a figure on a phone, in inches."""
LETTERS = 46
"""Letters of a title in a line of that width."""
OPEN = 6
"""Tables of more rows than this are folded behind their caption."""


def colour(name: str) -> Any:
    """The colour of a model (seaborn's colour-blind palette); grey for names without one of their own."""
    return PALETTE.get(name, (0.4, 0.4, 0.4))


def style() -> None:
    """Set the figure style of the whole book; the ground is white, so that figures can be read in dark mode too."""
    sns.set_theme(context="notebook", style="whitegrid", font_scale=0.95)
    plt.rcParams.update({"legend.fontsize": SMALLEST, "xtick.labelsize": SMALLEST, "ytick.labelsize": SMALLEST})
    plt.rcParams.update({"axes.titlesize": SMALLEST + 1, "figure.constrained_layout.use": True})


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


def panels(
    stored: Sequence[Mapping[str, Any]], own: Sequence[Mapping[str, Any]], title: Callable[[str], str] = str
) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by the title of their log, stored ones first: they are of the larger logs. A stored log that this run has
    too is named as stored.

    >>> list(panels([{"log": "large"}, {"log": "small"}], [{"log": "small"}]))
    ['large', 'small, stored', 'small']
    """
    here = {row["log"] for row in own}
    found: dict[str, list[Mapping[str, Any]]] = {}
    for row in stored:
        found.setdefault(title(row["log"]) + (", stored" if row["log"] in here else ""), []).append(row)
    for row in own:
        found.setdefault(title(row["log"]), []).append(row)
    return found


def grid(count: int, height: float, **shared: Any) -> tuple[MatplotlibFigure, list[Axes]]:
    """A figure of panels, two side by side over the width of a page, each so many inches high; and the panels.

    >>> drawn, axes = grid(3, 2.5)
    >>> drawn.get_size_inches().tolist(), len(axes), len(drawn.axes)
    ([9.0, 5.0], 3, 3)
    """
    size = (WIDTH if count > 1 else 0.6 * WIDTH, height * -(-count // 2))
    drawn, axes = plt.subplots(-(-count // 2), min(count, 2), figsize=size, squeeze=False, **shared)
    for unused in axes.flat[count:]:
        unused.remove()
    return drawn, list(axes.flat[:count])


def folded(shown: Shown, title: str) -> Shown:
    """Something behind its title, which opens it: for what a chapter can be read without.

    >>> folded(table([{"model": "DARE"}]), "Models")
    Models
    model
    DARE
    """
    content = f"<details><summary>{html.escape(title)}</summary>{shown.html}</details>"
    return Shown(f"{title}\n{shown.text}", f'<div class="study-table">{content}</div>')


def _svg(drawn: MatplotlibFigure) -> str:
    """A figure as an address that holds it as SVG."""
    buffer = io.BytesIO()
    drawn.savefig(buffer, format="svg", metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _stack(drawn: MatplotlibFigure) -> None:
    """Lay a figure out for a phone: its panels one below the other, each with the labels that neighbours shared.

    >>> drawn, axes = grid(4, 2.0)
    >>> _stack(drawn)
    >>> drawn.get_size_inches().round(1).tolist()
    [3.9, 8.0]
    """
    panels = [(axis, place) for axis in drawn.axes if (place := axis.get_subplotspec()) is not None]
    if not panels:
        return
    old: Any = panels[0][1].get_gridspec()
    rows = np.array(old.get_height_ratios() or [1.0] * old.nrows, float)
    inches = drawn.get_size_inches()[1] * rows / rows.sum()
    heights = [float(inches[place.rowspan.start]) for _, place in panels]
    drawn.set_size_inches(PHONE, sum(heights))
    places = drawn.add_gridspec(len(panels), 1, height_ratios=heights)
    for number_of, (axis, _) in enumerate(panels):
        axis.set_subplotspec(places[number_of])
        axis.set_title(textwrap.fill(axis.get_title(), LETTERS))
        axis.tick_params(labelleft=axis.yaxis.get_visible(), labelbottom=axis.xaxis.get_visible())
    for legend in [*drawn.legends]:
        labels = [text.get_text() for text in legend.get_texts()]
        legend.remove()
        handles = [handle for handle in legend.legend_handles if handle is not None]
        drawn.legend(handles, labels, loc="outside lower center", ncols=2)


def figure(drawn: MatplotlibFigure, alt: str, caption: str = "") -> Shown:
    """A figure as SVG, with its panels one below the other on a phone; it is closed.

    Parameters
    ----------
    drawn : the figure
    alt : what is drawn, in a sentence, for those who do not see it
    caption : what it shows, numbers included

    The text form is both.
    """
    wide = _svg(drawn)
    _stack(drawn)
    narrow = f'<source media="(max-width: 600px)" srcset="{_svg(drawn)}"/>'
    plt.close(drawn)
    image = f'<div><picture>{narrow}<img alt="{html.escape(alt)}" src="{wide}"/></picture></div>'
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    text = f"[figure] {alt} {caption}".rstrip()
    return Shown(text, f'<figure class="study-figure">{image}{below}</figure>')


def cell(value: Any) -> str:
    """A value as text: numbers as `dare_core.report.ledger.number` writes them, a dash for none."""
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


def table(rows: Sequence[Mapping[str, Any]], caption: str = "", open_to: int = OPEN) -> Shown:
    """A table from rows with the same keys; numbers are aligned right, each with its interval (`with_intervals`). With
    more than `open_to` rows it is folded behind its caption.

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
    folded = caption if len(body) > open_to else ""
    content = _html_table(head, "".join(_html_row(line, "td") for line in body), "" if folded else caption)
    if folded:
        content = f"<details><summary>{html.escape(folded)} ({len(body)} rows)</summary>{content}</details>"
    return Shown("\n".join(([caption] if caption else []) + padded), f'<div class="study-table">{content}</div>')


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


def style_class(verdict: str) -> str:
    """A verdict as a class of the style sheets."""
    return verdict.replace(",", "").replace(" ", "-")


def choice(label: str, options: Mapping[str, Shown]) -> Shown:
    """One of several shown things, chosen from a list; without scripts all are there, one below the other.

    >>> choice("target", {"first": table([{"x": 1}]), "second": table([{"x": 2}])})
    target: first
    x
    1
    """
    first, chosen = next(iter(options.items()))
    names = "".join(f"<option>{html.escape(name)}</option>" for name in options)
    form = f"<form hidden><label>{html.escape(label)}: <select>{names}</select></label></form>"
    parts = "".join(f"<div>{shown.html}</div>" for shown in options.values())
    script = '<script src="../_static/choice.js"></script>'
    return Shown(f"{label}: {first}\n{chosen.text}", f'<div class="choice">{form}{parts}</div>{script}')
