"""The strip that opens a chapter: its claims, a line per log with our number, its interval and the verdict."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from dare_core.report.claims import Claim, Quantity
from dare_core.report.ledger import ledger_table, verdict_line
from dare_core.report.pages import by_log, log_title, template
from dare_core.report.show import Shown, table
from dare_core.report.verdict import LedgerRow


def place_of(quantity: Quantity, rows: Iterable[LedgerRow]) -> Callable[[float], float]:
    """Where a value lies on the line of a quantity, in per cent of its length; ratios on the log scale. Every estimate,
    the null value and the paper's number are within; an interval that is wider is cut off."""

    def at(value: float) -> float:
        return math.log(max(value, 1e-9)) if quantity.scale == "log" else value

    known = [quantity.null, *(v for row in rows for v in (row.ours, row.paper) if v is not None)]
    low, high = min(map(at, known)), max(map(at, known))
    margin = 0.4 * (high - low) or 1.0
    low, high = low - margin, high + margin
    return lambda value: round(min(max(100 * (at(value) - low) / (high - low), 0.0), 100.0), 2)


def claim_strip(claims: Mapping[str, Claim], rows: Sequence[LedgerRow], own: Sequence[LedgerRow]) -> Shown:
    """The strip, and folded below it every number.

    Parameters
    ----------
    claims : by id
    rows : what is shown of them
    own : of these, what this run measured: the text form

    A claim's primary quantity is drawn, and those for which the paper gives a number; a line per log, most training
    samples first.
    """
    parts = []
    with_rows = {row.claim for row in rows}
    for name in [name for name in claims if name in with_rows]:
        quantities = [q for q in claims[name].quantities if q.judged and (q.primary or q.paper is not None)]
        lines = []
        for quantity in quantities:
            found = by_log(r for r in rows if (r.claim, r.quantity) == (name, quantity.quantity) and r.ours is not None)
            if found or quantity.primary:
                lines.append((quantity, found, place_of(quantity, found)))
        parts.append((name, lines))
    content = template("strip.html").render(claims=claims, parts=parts)
    shown = [
        {
            "claim": line["claim"],
            "quantity": line["quantity"].replace("_", " "),
            "log": log_title(line["log"]),
            "samples": line["samples"],
            "ours [95 %]": f"{line['ours']} {line['interval']}".strip(),
            "verdict": line["verdict"],
            "note": line["note"],
        }
        for line in ledger_table(rows)
    ]
    numbers = table(shown, "Every number of these claims", open_to=0).html if shown else ""
    return Shown("\n".join(verdict_line(row) for row in own), content + numbers)
