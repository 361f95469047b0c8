"""The record of a chapter: what the ledger reads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dare_core.evaluation.intervals import Interval
from dare_core.files import atomic_path, write_json
from dare_core.report.claims import Claim, load_claims
from dare_core.report.ledger import joined, measured_rows, stored_folders, verdict_line
from dare_core.report.settings import ChapterConfig
from dare_core.report.show import Shown
from dare_core.report.strip import claim_strip
from dare_core.report.verdict import HasBasis, LedgerRow, row
from dare_core.training.store import Store, environment


def plain(line: Mapping[str, Any]) -> dict[str, Any]:
    """A table's line with null in place of numbers that are not finite, which JSON does not have."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in line.items()}


@dataclass
class ChapterRecord:
    """What a chapter leaves behind: ledger rows, tables (as CSV files too), and what it rests on."""

    chapter: str
    config: ChapterConfig
    store: Store
    claims: dict[str, Claim] = field(default_factory=load_claims)
    rows: list[LedgerRow] = field(default_factory=list)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    logs: dict[str, dict[str, Any]] = field(default_factory=dict)

    def judge(
        self,
        claim: str,
        quantity: str,
        measured: Interval | None,
        on: HasBasis,
        note: str = "",
        own_best: Interval | None = None,
        blocked: str = "",
    ) -> None:
        """Add a ledger row; its verdict follows from the rule (`dare_core.report.verdict.row`) and from what the number
        is judged on."""
        asked = self.claims[claim]
        basis = on.basis(asked.needs_competence)
        self.rows.append(row(asked, quantity, measured, basis, self.config.label, note, own_best, blocked))

    def write(self, **tables: list[dict[str, Any]]) -> Path:
        """Add tables; write the metrics file and one CSV per table. Returns the metrics file's path."""
        self.tables |= tables
        folder = self.config.results_path
        for name, lines in self.tables.items():
            with atomic_path(folder / f"{self.chapter}_{name}.csv") as temporary:
                pl.DataFrame(lines, infer_schema_length=None).write_csv(temporary)
        path = folder / f"{self.chapter}.json"
        write_json(
            path,
            {
                "chapter": self.chapter,
                "date": datetime.now(UTC).date().isoformat(),
                "environment": environment(),
                "config": self.config.model_dump(mode="json", exclude={"results"}) | {"profile": self.config.label},
                "logs": self.logs,
                "rows": [r.model_dump() for r in self.rows],
                "tables": {name: [plain(line) for line in lines] for name, lines in self.tables.items()},
                "runs": {"computed": self.store.computed, "reused": self.store.reused},
            },
        )
        return path

    def strip(self) -> Shown:
        """The chapter's claims: what this run measured, and what is stored with the project."""
        own = {name for name, claim in self.claims.items() if claim.chapter == self.chapter} | {
            r.claim for r in self.rows
        }
        stored = [r for folder in stored_folders() for r in measured_rows(folder) if r.claim in own]
        return claim_strip(self.claims, joined(stored, self.rows), self.rows)

    def summary(self) -> str:
        """Stable text for the notebook's regression test: what was used, and the verdict lines, without digits that
        change with the machine."""
        lines = [f"{name}: {entry['kind']} {entry['fingerprint']}" for name, entry in self.logs.items()]
        lines.append(f"trainings: {self.store.computed + self.store.reused}")
        lines += [verdict_line(r) for r in self.rows]
        lines += [f"{name}: {len(rows)} rows" for name, rows in self.tables.items()]
        return "\n".join(lines)
