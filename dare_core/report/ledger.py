"""The ledger: every claim of the paper, our numbers and their verdicts.

Chapters write what they measured to one JSON file each; the ledger joins them with the claims.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from dare_core.config import explain
from dare_core.errors import InputError
from dare_core.files import project_root, store_root, write_json
from dare_core.report.claims import load_claims
from dare_core.report.verdict import LedgerRow


def results_folder(profile: str) -> Path:
    """Where the chapters of a profile's book write their metrics."""
    return store_root() / "book" / profile / "results"


def stored_folder() -> Path:
    """Where results that are stored with the project lie."""
    return project_root() / "book" / "stored"


def chapter_results(results: Path) -> dict[str, dict[str, Any]]:
    """The metrics files of a folder, by chapter."""
    found = {}
    for path in sorted(results.glob("*.json")):
        try:
            found[path.stem] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON ({error}): run its chapter again.") from error
    return {name: content for name, content in found.items() if isinstance(content, dict) and "rows" in content}


def measured_rows(results: Path) -> list[LedgerRow]:
    """The ledger rows of the metrics files of a folder."""
    rows = []
    for name, content in chapter_results(results).items():
        try:
            rows += [LedgerRow.model_validate(entry) for entry in content["rows"]]
        except ValidationError as error:
            raise explain(error, f"{results / name}.json") from error
    return rows


def joined(stored: Sequence[LedgerRow], built: Sequence[LedgerRow]) -> list[LedgerRow]:
    """Stored rows and those of a build: one row where quantity, log and embedding size agree, with the build's value
    in `rebuilt`."""

    def key(line: LedgerRow) -> tuple[str | int | None, ...]:
        return line.claim, line.quantity, line.fingerprint or line.log, line.embedding_size

    again = {key(line): line for line in built}
    rows = []
    for line in stored:
        same = again.pop(key(line), None)
        rows.append(line if same is None else line.model_copy(update={"rebuilt": same.ours}))
    return rows + list(again.values())


def stored_folders() -> list[Path]:
    """Folders of stored metrics files: of the full profile, and of each further log."""
    return [stored_folder(), *sorted(stored_folder().glob("further/*"))]


def ledger(results: Path, profile: str) -> list[LedgerRow]:
    """Every claim with what was measured for it; claims without a measurement say so.

    Results that are stored with the project (`book/stored`) and those of the profile are joined (`joined`).
    """
    rows = joined([line for folder in stored_folders() for line in measured_rows(folder)], measured_rows(results))
    lines: list[LedgerRow] = []
    for claim in load_claims().values():
        for quantity in claim.quantities:
            own = [r for r in rows if (r.claim, r.quantity) == (claim.id, quantity.quantity)]
            nothing = LedgerRow(
                claim=claim.id,
                quantity=quantity.quantity,
                primary=quantity.primary,
                profile=profile,
                paper=quantity.paper,
                verdict="cannot be tested here" if claim.untestable else "not studied yet",
                note=claim.untestable or "",
            )
            lines += sorted(own, key=lambda r: r.training_samples or 0) or [nothing]
    return lines


def write_ledger(results: Path, profile: str) -> Path:
    """Write the ledger beside the chapters' metrics; returns its path."""
    path = results / "ledger.json"
    write_json(path, [r.model_dump() for r in ledger(results, profile)])
    return path


def number(value: float | None) -> str:
    """Four decimals below 1 (more where two digits would not show), three below 10, then one; a dash for none."""
    if value is None or not math.isfinite(value):
        return "–"
    digits = 4 if abs(value) < 1 else 3 if abs(value) < 10 else 1
    if 0 < abs(value) < 1e-3:
        digits = min(1 - math.floor(math.log10(abs(value))), 12)
    return f"{value:,.{digits}f}"


def verdict_line(line: LedgerRow) -> str:
    """One line of text without digits that change with the machine: what notebooks print and tests compare."""
    marks = "*" if line.primary else ""
    return f"{line.claim}{marks} {line.quantity} on {line.log or 'no log'}: {line.verdict}"


def ledger_table(rows: Sequence[LedgerRow]) -> list[dict[str, str]]:
    """The ledger as it is printed: claim, paper, ours with interval, log, verdict."""
    return [
        {
            "claim": r.claim + ("*" if r.primary else ""),
            "quantity": r.quantity,
            "log": r.log or "–",
            "samples": "–" if r.training_samples is None else f"{r.training_samples:,}",
            "paper": number(r.paper),
            "ours": number(r.ours),
            "interval": "" if r.low is None else f"[{number(r.low)}, {number(r.high)}]",
            "seeds": "–" if r.seeds is None else str(r.seeds),
            "competence": "–" if r.competence is None else f"{r.competence:.2f}",
            "verdict": r.verdict,
            "note": r.note,
        }
        for r in rows
    ]
