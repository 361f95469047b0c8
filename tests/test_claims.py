"""The ledger: every claim is there, and the rule judges as stated."""

import json
from pathlib import Path

import pytest

from dare_core.claims import LedgerRow, Quantity, judge, ledger, load_claims, row, write_ledger
from dare_core.files import write_json
from dare_core.intervals import Interval

IDS = [
    "G1",
    "G2",
    "P1",
    "P2",
    "P3",
    "O1",
    "O2",
    "O3",
    "O4",
    "O5",
    "S1",
    "A1",
    "A2",
    "A3",
    "A4",
    "R1",
    "R2",
    "C1",
    "E1",
    "D1",
    "D2",
    "T1",
]
RATIO = Quantity(quantity="ratio", meaning="", paper=5.0, null=1.0, direction="greater")
LESS = Quantity(quantity="slope", meaning="", paper=-2.0, null=0.0, direction="less")
PICTURE = Quantity(quantity="picture", meaning="", paper=None, null=0.0, direction="greater")


def test_every_claim_of_the_study_is_there() -> None:
    claims = load_claims()
    assert set(IDS) <= set(claims)
    for claim in claims.values():
        assert claim.quantities and claim.claim and claim.source
        names = [q.quantity for q in claim.quantities]
        assert len(names) == len(set(names))
    assert claims["T1"].untestable


@pytest.mark.parametrize(
    ("quantity", "values", "verdict"),
    [
        (RATIO, (4.0, 3.5, 4.5), "holds"),
        (RATIO, (3.0, 1.1, 9.0), "holds"),
        (RATIO, (2.0, 1.5, 2.5), "holds in direction"),
        (RATIO, (1.2, 0.8, 2.0), "does not hold"),
        (RATIO, (2.0, 0.5, 4.0), "undecided"),
        (RATIO, (0.9, 0.5, 3.5), "undecided"),
        (RATIO, (0.5, 0.3, 0.9), "does not hold"),
        (LESS, (-1.5, -2.0, -1.0), "holds"),
        (LESS, (-0.5, -0.9, -0.1), "holds in direction"),
        (LESS, (0.5, 0.1, 0.9), "does not hold"),
        (LESS, (-0.5, -1.5, 0.2), "undecided"),
        (PICTURE, (0.1, 0.01, 0.2), "holds"),
        (PICTURE, (0.1, -0.01, 0.2), "undecided"),
        (PICTURE, (-0.1, -0.2, -0.01), "does not hold"),
        (RATIO, (float("nan"), 0.0, 1.0), "cannot be tested here"),
    ],
)
def test_rule(quantity: Quantity, values: tuple[float, float, float], verdict: str) -> None:
    assert judge(quantity, *values) == verdict


def test_ledger_joins_claims_and_measurements(tmp_path: Path) -> None:
    claims = load_claims()
    quantity = claims["G1"].quantities[0].quantity
    measured = row(claims, "G1", quantity, Interval(4.0, 3.0, 5.0, 0.5, 3), log="a", kind="own log", profile="smoke")
    write_json(tmp_path / "gradients.json", {"rows": [measured.model_dump()], "config": {}})
    rows = ledger(tmp_path, "smoke")
    assert [r for r in rows if r.claim == "G1" and r.quantity == quantity] == [measured]
    assert {r.claim for r in rows} >= set(IDS)
    assert {r.profile for r in rows if r.claim == "P1"} == {"full"}, "stored results stand beside the profile's own"
    assert {r.verdict for r in ledger(tmp_path, "full") if r.claim == "P1"} == {"not studied yet"}
    assert {r.verdict for r in rows if r.claim == "T1"} == {"cannot be tested here"}
    written = json.loads(write_ledger(tmp_path, "smoke").read_text())
    fields = {"claim", "log", "profile", "paper", "ours", "low", "high", "seeds", "verdict", "quantity"}
    assert all(fields <= set(entry) for entry in written)
    assert [LedgerRow.model_validate(entry) for entry in written] == rows
