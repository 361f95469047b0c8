"""Write what was found into README.md, between its marks `findings`, from a ledger.

.venv/bin/dare claims --json > ledger.json && .venv/bin/python book/findings.py ledger.json

Five bullets; each takes the primary quantities of some claims, with their verdict on every log they were measured on,
most training samples first. DARE minus TWIN comes before the primary quantity of O1.
"""

import json
import re
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path

from dare_core.report.claims import Claim, load_claims
from dare_core.report.pages import log_title
from dare_core.report.verdict import LedgerRow

README = Path(__file__).parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- findings -->\n).*?(<!-- /findings -->)", re.DOTALL)
BULLETS = {
    "Accuracy and speed of learning": ("O1", "O2", "C1"),
    "Attention and representation": ("A2", "A3", "A4", "R1"),
    "Gradients": ("G1", "G2"),
    "Projections": ("P1", "P2", "P3"),
    "Cost": ("E1", "D1"),
}
"""Bullets and their claims, in this order."""
LEAD = ("O1", "dare_minus_twin")
WIDTH = 118
UNJUDGED = ("cannot be tested here", "not studied yet")


def log_name(name: str | None) -> str:
    """A log's name within a sentence."""
    return "the generated log" if name == "generated" else log_title(name)


def number(value: float | None) -> str:
    """Three significant digits."""
    return "–" if value is None else f"{value:.3g}"


def measured(row: LedgerRow, unit: str) -> str:
    """Verdict, log and number of a ledger row."""
    paper = "" if row.paper is None else f"; paper {number(row.paper)}"
    ours = f"{unit} {number(row.ours)} [{number(row.low)}, {number(row.high)}]{paper}".strip()
    return f"**{row.verdict}** on {log_name(row.log)}" + ("" if row.ours is None else f" ({ours})")


def sentence(claim: Claim, rows: Iterable[LedgerRow]) -> str:
    """A claim, or a part of it, and what was found on each log."""
    rows = sorted(rows, key=lambda row: -(row.training_samples or 0))
    found = ", ".join(measured(row, claim.of(row.quantity).unit) for row in rows)
    said = claim.claim if rows[0].primary else claim.of(rows[0].quantity).meaning
    return f"{said.rstrip('.')} ({claim.id}): {found}."


def bullets(rows: list[LedgerRow], claims: dict[str, Claim]) -> list[str]:
    """Lines of one bullet per subject. Claims without a verdict are named at its end."""
    judged = [row for row in rows if row.log and row.verdict not in UNJUDGED]
    lead = [row for row in judged if (row.claim, row.quantity) == LEAD]
    lines = []
    for title, names in BULLETS.items():
        found = {name: [row for row in judged if row.claim == name and row.primary] for name in names}
        parts = [sentence(claims[LEAD[0]], lead)] if lead and LEAD[0] in names else []
        parts += [sentence(claims[name], found[name]) for name in names if found[name]]
        missing = [name for name in names if not found[name] and not (lead and name == LEAD[0])]
        if missing:
            parts.append(f"Not judged: {', '.join(missing)}.")
        lines += textwrap.wrap(f"- **{title}.** {' '.join(parts)}", WIDTH, subsequent_indent="  ")
    return lines


def fill(text: str, rows: list[LedgerRow], claims: dict[str, Claim]) -> str:
    """A text whose marked block holds the bullets. Raises ValueError where it has no such block."""
    if not BLOCK.search(text):
        raise ValueError("there is no block between <!-- findings --> and <!-- /findings -->")
    block = "\n".join(bullets(rows, claims))
    return BLOCK.sub(lambda marks: f"{marks[1]}{block}\n{marks[2]}", text)


def main(ledger: Path, readme: Path = README) -> None:
    """Fill the block of a file."""
    rows = [LedgerRow.model_validate(row) for row in json.loads(ledger.read_text("utf-8"))]
    readme.write_text(fill(readme.read_text("utf-8"), rows, load_claims()), "utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
