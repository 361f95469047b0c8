"""The ledger: every claim of the paper, our numbers, and verdicts that a rule computes.

The claims are in `book/claims.yml`; chapters write what they measured to one JSON file each, and the
ledger is both joined.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.files import store_root, write_json
from dare_core.intervals import Interval

Verdict = Literal[
    "holds", "holds in direction", "does not hold", "undecided", "cannot be tested here", "not studied yet"
]


class Quantity(Strict):
    """One number that a claim is about."""

    quantity: str
    meaning: str
    paper: float | None  # null where the paper shows a picture only
    null: float  # the value at which there is no effect
    direction: Literal["greater", "less"]
    unit: str = ""
    also: list[str] = Field(default_factory=list, description="other settings of the paper, quoted")


class Claim(Strict):
    """A claim of the paper."""

    id: str
    claim: str
    source: str
    chapter: str
    untestable: str | None = None
    quantities: list[Quantity]

    def of(self, name: str) -> Quantity:
        """A quantity by name."""
        return next(q for q in self.quantities if q.quantity == name)


class LedgerRow(Strict):
    """A line of the ledger. `ours`, `low`, `high` are numbers, or null where there are none."""

    claim: str
    quantity: str
    log: str | None = None
    kind: str | None = None  # generated log, published log, own log, published text, own text
    profile: str | None = None
    paper: float | None = None
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    seeds: int | None = None
    verdict: Verdict
    note: str = ""


def project_root() -> Path:
    """The folder that holds `book/` and `notebooks/`: the package's parent, in a clone."""
    return Path(__file__).resolve().parent.parent


def load_claims(path: Path | None = None) -> dict[str, Claim]:
    """Every claim, by id, in the order of the file."""
    path = path or project_root() / "book" / "claims.yml"
    try:
        claims = [Claim.model_validate(entry) for entry in yaml.safe_load(path.read_text("utf-8"))]
    except OSError as error:
        raise InputError(f"The claims cannot be read from {path} ({error.strerror}).") from error
    except ValidationError as error:
        raise explain(error, path.name) from error
    return {claim.id: claim for claim in claims}


def judge(quantity: Quantity, ours: float, low: float, high: float) -> Verdict:
    """The verdict, by the rule that was fixed before any result was read.

    With effects counted from the quantity's null value, in the claimed direction:
    *holds*: the interval excludes 0 and the estimate is at least half the paper's effect;
    *holds in direction*: it excludes 0, with a smaller effect; *does not hold*: it lies on the other side
    of 0, or excludes half the paper's effect; *undecided*: it allows both. Where the paper gives no number
    there is no half to reach: *holds* needs only an interval that excludes 0.
    """
    if not all(math.isfinite(value) for value in (ours, low, high)):
        return "cannot be tested here"
    sign = 1.0 if quantity.direction == "greater" else -1.0
    effect = sign * (ours - quantity.null)
    bounds = sorted((sign * (low - quantity.null), sign * (high - quantity.null)))
    half = sign * (quantity.paper - quantity.null) / 2 if quantity.paper is not None else 0.0
    if bounds[0] > 0:
        return "holds" if effect >= half else "holds in direction"
    if bounds[1] < 0 or (half > 0 and bounds[1] < half):
        return "does not hold"
    return "undecided"


def row(
    claims: dict[str, Claim],
    claim: str,
    quantity: str,
    interval: Interval | None,
    *,
    log: str,
    kind: str,
    profile: str,
    note: str = "",
) -> LedgerRow:
    """A ledger row with its verdict; without an interval, `note` says why it cannot be tested here."""
    entry = claims[claim].of(quantity)
    common: dict[str, Any] = {
        "claim": claim,
        "quantity": quantity,
        "log": log,
        "kind": kind,
        "profile": profile,
        "paper": entry.paper,
        "note": note,
    }
    if interval is None or not math.isfinite(interval.estimate):
        return LedgerRow(**common, verdict="cannot be tested here")
    values = (interval.estimate, interval.low, interval.high)
    return LedgerRow(
        **common,
        ours=values[0],
        low=values[1],
        high=values[2],
        detectable=interval.detectable,
        seeds=interval.seeds,
        verdict=judge(entry, *values),
    )


def results_folder(profile: str) -> Path:
    """Where the chapters of a profile's book write their metrics."""
    return store_root() / "book" / profile / "results"


def chapter_results(results: Path) -> dict[str, dict[str, Any]]:
    """The metrics files of a folder, by chapter."""
    found = {}
    for path in sorted(results.glob("*.json")):
        try:
            content = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}): run its chapter again.") from error
        if isinstance(content, dict) and "rows" in content:
            found[path.stem] = content
    return found


def measured_rows(results: Path) -> list[LedgerRow]:
    """The ledger rows of the metrics files of a folder."""
    rows = []
    for name, content in chapter_results(results).items():
        try:
            rows += [LedgerRow.model_validate(entry) for entry in content["rows"]]
        except ValidationError as error:
            raise explain(error, f"{results / name}.json") from error
    return rows


def ledger(results: Path, profile: str) -> list[LedgerRow]:
    """Every claim with what was measured for it; claims without a measurement say so.

    The stored full results (`book/stored`) stand beside what the profile measured; `profile` tells them apart.
    """
    measured = measured_rows(results)
    if profile != "full":
        measured += measured_rows(project_root() / "book" / "stored")
    rows: list[LedgerRow] = []
    for claim in load_claims().values():
        for quantity in claim.quantities:
            own = [r for r in measured if (r.claim, r.quantity) == (claim.id, quantity.quantity)]
            if not own:
                own = [
                    LedgerRow(
                        claim=claim.id,
                        quantity=quantity.quantity,
                        profile=profile,
                        paper=quantity.paper,
                        verdict="cannot be tested here" if claim.untestable else "not studied yet",
                        note=claim.untestable or "",
                    )
                ]
            rows += own
    return rows


def write_ledger(results: Path, profile: str) -> Path:
    """Write the ledger beside the chapters' metrics; returns its path."""
    path = results / "ledger.json"
    write_json(path, [r.model_dump() for r in ledger(results, profile)])
    return path


def number(value: float | None) -> str:
    """Four significant digits; an en dash for none."""
    if value is None:
        return "–"
    digits = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 1
    return f"{value:,.{digits}f}"


def ledger_table(rows: Sequence[LedgerRow]) -> list[dict[str, str]]:
    """The ledger as it is printed: claim, paper, ours with interval, log, verdict."""
    return [
        {
            "claim": r.claim,
            "quantity": r.quantity,
            "paper": number(r.paper),
            "ours": number(r.ours),
            "interval": "" if r.low is None else f"[{number(r.low)}, {number(r.high)}]",
            "detectable": number(r.detectable),
            "seeds": "–" if r.seeds is None else str(r.seeds),
            "log": r.log or "–",
            "profile": r.profile or "–",
            "verdict": r.verdict,
        }
        for r in rows
    ]
