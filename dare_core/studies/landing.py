"""Landing page: what was asked, and the ledger at a glance."""

import html
from dataclasses import dataclass

from dare_core.report.claims import Claim, LedgerRow, ledger, ledger_table, load_claims
from dare_core.report.show import MARKS, Shown, measured_cells, table
from dare_core.studies import settings

Config = settings.LandingConfig


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


def verdict_counts(result: Result) -> Shown:
    """How many claims have which verdict on which log: their primary quantities alone."""
    primary = [r for r in result.rows if r.primary and r.log]
    logs = list(dict.fromkeys(r.log for r in primary))
    rows = [
        {
            "verdict": verdict,
            **{
                str(log): ", ".join(r.claim for r in primary if (r.verdict, r.log) == (verdict, log)) or "–"
                for log in logs
            },
        }
        for verdict in MARKS
        if verdict != "not studied yet"
    ]
    waiting = [r.claim for r in result.rows if r.primary and r.verdict == "not studied yet"]
    caption = "Claims by verdict of their primary quantity"
    return table(rows, f"{caption}; not studied yet: {', '.join(waiting)}" if waiting else caption)


def show_ledger(result: Result) -> Shown:
    """The ledger: one row per claim, quantity, log and embedding size."""
    plain = table(ledger_table(result.rows))
    lines = []
    for name, claim in result.claims.items():
        own = [r for r in result.rows if r.claim == name]
        if all(r.log is None and r.ours is None for r in own):
            own = own[:1]  # nothing measured: one row says so
        for i, r in enumerate(own):
            first = ""
            if i == 0:
                title = (
                    f"<strong>{name}</strong> {html.escape(claim.claim)} <small>({html.escape(claim.source)})</small>"
                )
                first = f'<td rowspan="{len(own)}" class="text">{title}</td>'
            quantity = r.quantity.replace("_", " ")
            what = f"<strong>{quantity}</strong>" if r.primary else quantity
            lines.append(f"<tr>{first}<td>{what}</td>{measured_cells(r)}</tr>")
    head = "".join(
        f"<th>{title}</th>" for title in ("claim", "quantity", "log", "paper (quoted)", "ours [95 %]", "verdict")
    )
    return Shown(
        plain.text,
        f'<div class="study-table ledger"><table class="table"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>",
    )
