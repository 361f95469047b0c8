"""What every chapter has, whatever it studies: its settings' base, and the record that the ledger reads."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Protocol, Self

import polars as pl
from pydantic import Field, ValidationError

from dare_core.config import Strict, explain
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval
from dare_core.files import atomic_path, canonical_json, short_hash, write_json
from dare_core.report.claims import Basis, Claim, LedgerRow, load_claims, results_folder, row, verdict_line
from dare_core.report.show import Shown, claim_box
from dare_core.training.store import environment

NOTEBOOKS = "smoke"
"""The profile of the notebooks' own parameters."""
LABELS = ("profile", "results")
"""Parameters that change no number."""


def label_of(profile: str, beyond: Mapping[str, Any]) -> str:
    """Label of results: the profile's name, and a hash of the parameters that are not the profile's, if any."""
    return f"{profile}+{short_hash(canonical_json(dict(beyond)))[:8]}" if beyond else profile


class ChapterConfig(Strict):
    """What every chapter can be told."""

    profile: str = Field(NOTEBOOKS, description="label of the results, and where they are written")
    results: str = Field("", description="folder of the metrics files; by default in the store, by label")

    @classmethod
    def of(cls, namespace: Mapping[str, Any]) -> Self:
        """The configuration from a notebook's variables, each named as its parameter."""
        return cls.checked({name: namespace[name] for name in cls.model_fields if name in namespace})

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """Validate values; InputError for an unknown name (with the nearest), a wrong type or range."""
        for name in values:
            if name not in cls.model_fields:
                near = get_close_matches(name, cls.model_fields, 1, 0.4)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise InputError(f"There is no parameter {name!r}.{hint} There are: {', '.join(cls.model_fields)}.")
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise explain(error, "parameters") from error

    @property
    def label(self) -> str:
        """Label of the results. A notebook run by hand with parameters of its own gets one of its own."""
        if self.profile != NOTEBOOKS:
            return self.profile
        given = self.model_dump(mode="json", exclude={*LABELS}, exclude_defaults=True)
        return label_of(NOTEBOOKS, given)

    @property
    def results_path(self) -> Path:
        """Folder of the metrics files."""
        return Path(self.results) if self.results else results_folder(self.label)


class Store(Protocol):
    """What a record needs of a store of runs: how many it computed, and how many it read back."""

    @property
    def computed(self) -> int: ...

    @property
    def reused(self) -> int: ...


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

    def judge_on(
        self,
        claim: str,
        quantity: str,
        measured: Interval | None,
        basis: Basis,
        note: str = "",
        own_best: Interval | None = None,
        blocked: str = "",
    ) -> None:
        """Add a ledger row; its verdict follows from the rule (`dare_core.report.claims.row`)."""
        label = self.config.label
        self.rows.append(row(self.claims[claim], quantity, measured, basis, label, note, own_best, blocked))

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

    def box(self) -> Shown:
        """The claim box."""
        return claim_box(self.claims, self.rows)

    def summary(self) -> str:
        """Stable text for the notebook's regression test: what was used, and the verdict lines, without digits that
        change with the machine."""
        lines = [f"{name}: {entry['kind']} {entry['fingerprint']}" for name, entry in self.logs.items()]
        lines.append(f"trainings: {self.store.computed + self.store.reused}")
        lines += [verdict_line(r) for r in self.rows]
        lines += [f"{name}: {len(rows)} rows" for name, rows in self.tables.items()]
        return "\n".join(lines)
