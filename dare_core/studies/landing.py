"""Landing page: what was asked, and the ledger at a glance."""

import html
from dataclasses import dataclass

from dare_core.claims import Claim, LedgerRow, ledger, ledger_table, load_claims, number
from dare_core.present import MARKS, Shown, describe, table
from dare_core.studies.common import StudyConfig


class Config(StudyConfig):
    """Parameters of the landing page."""


@dataclass
class Result:
    """Everything that the page shows."""

    claims: dict[str, Claim]
    rows: list[LedgerRow]


def run(config: Config) -> Result:
    """Join the claims with what the chapters measured."""
    return Result(load_claims(), ledger(config.results_path, config.profile))


def counts(result: Result) -> str:
    """How many claims have been studied."""
    studied = {r.claim for r in result.rows if r.log is not None}
    untestable = {r.claim for r in result.rows if r.log is None and r.verdict == "cannot be tested here"}
    waiting = len(result.claims) - len(studied | untestable)
    return (
        f"{len(result.claims)} claims: {len(studied)} studied, {len(untestable)} cannot be tested here, "
        f"{waiting} not studied yet."
    )


def show_ledger(result: Result) -> Shown:
    """The ledger: a line each claim, quantity and log."""
    plain = table(ledger_table(result.rows))
    lines = []
    for name, claim in result.claims.items():
        own = [r for r in result.rows if r.claim == name]
        if all(r.log is None for r in own):
            own = own[:1]  # nothing measured: one line says so
        for i, r in enumerate(own):
            first = ""
            if i == 0:
                title = (
                    f"<strong>{name}</strong> {html.escape(claim.claim)} <small>({html.escape(claim.source)})</small>"
                )
                first = f'<td rowspan="{len(own)}" class="text">{title}</td>'
            ours = "–" if r.ours is None else f"{number(r.ours)}<br><small>[{number(r.low)}, {number(r.high)}]</small>"
            what = f"{r.log}<br><small>{', '.join(describe(r))}</small>" if r.log else "–"
            quantity = r.quantity.replace("_", " ") if r.log else "–"
            note = f"<br><small>{html.escape(r.note)}</small>" if r.note else ""
            detectable = number(r.detectable)
            lines.append(
                f'<tr>{first}<td>{quantity}</td><td>{what}</td><td class="number">{number(r.paper)}</td>'
                f'<td class="number">{ours}</td><td class="number">{detectable}</td>'
                f'<td class="verdict {r.verdict.replace(" ", "-")}">{MARKS[r.verdict]} {r.verdict}{note}</td></tr>'
            )
    head = "".join(
        f"<th>{title}</th>"
        for title in ("claim", "quantity", "log", "paper (quoted)", "ours [95 %]", "detectable", "verdict")
    )
    return Shown(
        plain.text,
        f'<div class="study-table ledger"><table class="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>",
    )
