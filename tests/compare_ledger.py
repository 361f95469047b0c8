"""Compare the smoke book's ledger with the stored one: a changed number is caught where verdicts cannot tell.

python tests/compare_ledger.py LEDGER          compares, exit status 1 where a number moved
python tests/compare_ledger.py LEDGER --write  stores it as what is expected

A number may move by a quarter of its interval's width: another processor draws slightly different worlds and rounds
trainings differently. Rows, verdicts and sizes must be the same.
"""

import json
import sys
from pathlib import Path
from typing import Any

EXPECTED = Path(__file__).parent / "smoke_ledger.json"
FIELDS = ("claim", "quantity", "log", "verdict", "ours", "low", "high", "competence", "training_samples", "worlds")


def smoke_rows(path: Path) -> list[dict[str, Any]]:
    """What the smoke profile measured, without what is stored with the project."""
    rows = json.loads(path.read_text("utf-8"))
    return [{field: row[field] for field in FIELDS} for row in rows if row["profile"] == "smoke" and row["log"]]


def tolerance(row: dict[str, Any]) -> float:
    """How far a number may move."""
    return (row["high"] - row["low"]) / 4


def differences(expected: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[str]:
    """One sentence per difference that matters."""

    def by_key(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {f"{row['claim']} {row['quantity']} on {row['log']}": row for row in rows}

    old, new = by_key(expected), by_key(found)
    said = [f"{key}: only {'expected' if key in old else 'found'}" for key in sorted(set(old) ^ set(new))]
    for key in sorted(set(old) & set(new)):
        was, now = old[key], new[key]
        said += [
            f"{key}: {field} was {was[field]!r}, is {now[field]!r}"
            for field in ("verdict", "training_samples", "worlds")
            if was[field] != now[field]
        ]
        if (was["ours"] is None) != (now["ours"] is None):
            said.append(f"{key}: was {was['ours']}, is {now['ours']}")
        elif was["ours"] is not None and not abs(now["ours"] - was["ours"]) <= tolerance(was):
            said.append(f"{key}: was {was['ours']:.5g}, is {now['ours']:.5g}, may move by {tolerance(was):.2g}")
    return said


def main() -> int:
    """Compare, or store."""
    found = smoke_rows(Path(sys.argv[1]))
    if "--write" in sys.argv[2:]:
        EXPECTED.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
        return 0
    said = differences(json.loads(EXPECTED.read_text("utf-8")), found)
    print("\n".join(said) or f"{len(found)} ledger rows as expected")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
