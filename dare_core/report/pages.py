"""The landing page and the page of all claims, made from the ledger: sentences are chosen by verdicts, and no number is
written by hand."""

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from dare_core.files import write_json
from dare_core.report.claims import Claim
from dare_core.report.ledger import number
from dare_core.report.show import MARKS, Shown, style_class
from dare_core.report.verdict import LedgerRow

CLAIMS_PAGE = "../book/claims.html"
"""The page of all claims, seen from a chapter."""
LEAD = ("O1", "dare_minus_twin")
EXPLANATION = ("A2", "A3", "A4")
"""Claims of why DARE is better: what its search finds."""
ANSWERS: Mapping[str, str] = {
    "holds": "Yes, on the largest log.",
    "holds, smaller": "Yes, on the largest log, but by less than half of the paper's gain.",
    "contradicted": "No: on the largest log one table is better.",
    "absent": "No: on the largest log two tables gain nothing that can be seen.",
    "undecided": "The largest log cannot tell.",
    "cannot be tested here": "Not judged on the largest log.",
    "not studied yet": "Not studied yet.",
}
JUDGED = ("holds", "holds, smaller", "contradicted", "absent", "undecided")
CATCHES: Mapping[str, tuple[str, str, str, tuple[str, ...]]] = {
    "How many are retrieved": (
        "D1",
        "advantage_few_minus_many",
        "When few behaviours are retrieved (small K), DARE's lead over TWIN is {}.",
        ("larger", "a little larger", "smaller, against the claim", "about the same", "not surely larger or smaller"),
    ),
    "A cheaper search": (
        "E1",
        "loss_half_dare",
        "With half the attention size, DARE loses {}.",
        (
            "hardly any AUC",
            "hardly any AUC",
            "more AUC than the margin",
            "about the margin",
            "an amount of AUC that may or may not exceed the margin",
        ),
    ),
}
"""Cards of the landing page: claim, quantity, and a sentence with its end for each verdict of `JUDGED`."""
GROUPS: Mapping[str, str] = {
    **dict.fromkeys("GP", "the problem"),
    **dict.fromkeys("O", "the result"),
    **dict.fromkeys("SAR", "the mechanism"),
    **dict.fromkeys("CE", "speed"),
    **dict.fromkeys("D", "limits"),
}
"""Columns of the map, by the first letter of a claim's id."""


TITLES = {"generated": "Generated log", "ml1m": "MovieLens-1M"}
"""Names of logs for readers, where they do not follow from the log's own."""


def log_title(name: str | None) -> str:
    """A log's name for readers.

    >>> log_title("world_100m"), log_title("complete_journey"), log_title("generated"), log_title(None)
    ('World 100M', 'Complete Journey', 'Generated log', '–')
    """
    if name in (None, *TITLES):
        return TITLES[name] if name else "–"
    return re.sub(r"(\d)m\b", r"\1M", str(name).replace("_", " ")).title()


def value(row: LedgerRow) -> str:
    """Our number with its interval."""
    return number(row.ours) + ("" if row.low is None else f" [{number(row.low)}, {number(row.high)}]")


def spoken(row: LedgerRow) -> str:
    """A cell of the map in words: claim, log, verdict and numbers."""
    ours = "" if row.ours is None else f": {value(row)}"
    paper = "" if row.paper is None or not ours else f", paper {number(row.paper)}"
    part = "" if row.primary else f" ({row.quantity.replace('_', ' ')}, a part of it)"
    return f"{row.claim}{part} on {log_title(row.log)}, {row.verdict}{ours}{paper}"


def by_log(rows: Iterable[LedgerRow]) -> list[LedgerRow]:
    """One row per log, most training samples first; of a log's rows that with most, at the smallest embedding."""
    found: dict[str, LedgerRow] = {}
    for row in sorted(rows, key=lambda r: (-(r.training_samples or 0), r.embedding_size or 0)):
        if row.log:
            found.setdefault(row.log, row)
    return list(found.values())


def measured(rows: Iterable[LedgerRow], claim: str, quantity: str) -> list[LedgerRow]:
    """A quantity's numbers, one per log, most training samples first."""
    return by_log(r for r in rows if (r.claim, r.quantity) == (claim, quantity) and r.ours is not None)


def axis(rows: Sequence[LedgerRow], left: float, right: float) -> tuple[Callable[[float], float], list[float]]:
    """Where a value lies between two places of a drawing, and round values to mark; all intervals, nothing (0) and the
    paper's number are within."""
    ends = [0.0, *(v for r in rows for v in (r.low, r.high, r.ours, r.paper) if v is not None)]
    span = max(ends) - min(ends) or 1.0
    low, high = min(ends) - 0.04 * span, max(ends) + 0.04 * span
    unit = 10.0 ** math.floor(math.log10(span))
    step = next(unit * part for part in (0.2, 0.5, 1, 2) if span / (unit * part) <= 5)
    ticks = [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return lambda v: round(left + (right - left) * (v - low) / (high - low), 1), ticks


def claim_map(rows: Sequence[LedgerRow], claims: Mapping[str, Claim]) -> dict[str, Any]:
    """Claims that can be tested, by group, and per log a row of each: of its primary quantity, or where that was not
    measured there, of the first that was."""
    names = [name for name, claim in claims.items() if not claim.untestable]
    found: dict[str, dict[str, LedgerRow]] = {}
    for name in names:
        own = [r for r in rows if r.claim == name]
        for row in by_log(r for r in own if r.primary) + by_log(r for r in own if r.ours is not None):
            found.setdefault(str(row.log), {}).setdefault(name, row)
    sizes = {  # most of a log's claims have the same; gradients are recorded on more users
        log: Counter(r.training_samples or 0 for r in cells.values()).most_common(1)[0][0]
        for log, cells in found.items()
    }
    return {
        "groups": [(title, list(own)) for title, own in groupby(names, lambda name: GROUPS.get(name[0], "further"))],
        "logs": [(log, sizes[log], found[log]) for log in sorted(found, key=lambda log: -sizes[log])],
    }


def template(name: str) -> Template:
    """A template of this folder, with the words and marks that they share."""
    environment = Environment(
        loader=PackageLoader("dare_core", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "title_of": log_title, "value": value, "spoken": spoken}
    environment.filters |= {"style_class": style_class, "count": "{:,}".format}
    environment.globals |= {"MARKS": MARKS, "page": CLAIMS_PAGE}
    return environment.get_template(name)


def landing(rows: Sequence[LedgerRow], claims: Mapping[str, Claim]) -> Shown:
    """The landing page below its title: the answer, DARE minus TWIN per log, a drawing, catches, and the map."""
    leads, mapped = measured(rows, *LEAD), claim_map(rows, claims)
    largest: dict[str, LedgerRow] = next(
        (cells for log, _, cells in mapped["logs"] if leads and log == leads[0].log), {}
    )
    place, ticks = axis(leads, 142, 356)
    catches = {}
    for title, (claim, quantity, sentence, ends) in CATCHES.items():
        if found := measured(rows, claim, quantity):
            verdict = found[0].verdict
            says = sentence.format(ends[JUDGED.index(verdict)]) if verdict in JUDGED else f"{verdict}."
            catches[title] = (claim, f"{log_title(found[0].log)}: {says[0].lower()}{says[1:]}", found)
    content = template("landing.html").render(
        answer=ANSWERS[leads[0].verdict if leads else "not studied yet"],
        leads=leads,
        elsewhere={
            kind: Counter(r.verdict for r in own)
            for kind, own in groupby(sorted(leads[1:], key=lambda r: r.kind or "log"), lambda r: r.kind or "log")
        },
        explained=Counter(largest[name].verdict for name in EXPLANATION if name in largest),
        place=place,
        ticks=ticks,
        catches=catches,
        rules=[r for r in leads if r.competence is not None],
        timed=next((r for r in rows if r.quantity == "search_time_half" and r.ours is not None), None),
        claims=claims,
        **mapped,
    )
    words = re.sub(r"<[^>]+>", "", content.partition("<!-- answer -->")[2].partition("<!-- /answer -->")[0])
    return Shown(" ".join(words.split()), content)


def explorer(scores: Sequence[Mapping[str, Any]], usual: int = 20) -> Shown:
    """Test AUC by the number of retrieved behaviours K, with a slider over K.

    Parameters
    ----------
    scores : rows of the chapter on the retrieval number, as they are stored: `log`, `varied`, `K`, `model`, `AUC`, ...
    usual : the K that is shown first; the nearest that there is
    """
    lines = []
    varied = [row for row in scores if row["varied"] == "K" and row["AUC"] is not None]
    for (log, k), own in groupby(varied, lambda row: (row["log"], row["K"])):
        by_model = {row["model"]: row for row in own}
        if {"DARE", "TWIN"} <= set(by_model):
            dare, twin = by_model["DARE"], by_model["TWIN"]
            lead = {end: twin[f"DARE minus it, {end}"] for end in ("low", "high")}
            line = {"log": log, "k": k, "dare": dare["AUC"], "twin": twin["AUC"], "rule": dare["best rule"]}
            lines.append(line | lead | {"lead": twin["DARE minus it"]})
    numbers = sorted({line["k"] for line in lines})
    if not numbers:
        return Shown("DARE and TWIN were not compared by K", "")
    first = min(numbers, key=lambda k: abs(k - usual))
    shown = template("explorer.html").render(lines=lines, numbers=numbers, usual=first)
    return Shown(f"DARE and TWIN at K = {', '.join(map(str, numbers))}", shown)


def claims_table(rows: Sequence[LedgerRow], claims: Mapping[str, Claim], commands: Sequence[str]) -> str:
    """Every row of the ledger as HTML, the primary quantity of a claim first; each has the command that computes it."""
    order = {name: place for place, name in enumerate(claims)}
    lines = sorted(zip(rows, commands, strict=True), key=lambda line: (order[line[0].claim], not line[0].primary))
    first = {row.claim: i for i, (row, _) in reversed([*enumerate(lines)])}
    return template("claims.html").render(lines=lines, claims=claims, first=first)


def write_downloads(rows: Sequence[LedgerRow], folder: Path) -> None:
    """The ledger as `claims.csv` and `claims.json`, for the links of the page of all claims."""
    lines = [row.model_dump() for row in rows]
    write_json(folder / "claims.json", lines)
    pl.DataFrame(lines, infer_schema_length=None).write_csv(folder / "claims.csv")
