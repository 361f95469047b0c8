"""The comparison of ledgers notices what changed."""

import json

from compare_ledger import EXPECTED, differences

ROW = {
    "claim": "A3", "quantity": "ratio", "log": "generated", "verdict": "undecided", "ours": 1.2, "low": 1.0,
    "high": 1.4, "competence": 0.7, "training_samples": 100, "worlds": 3,
}  # fmt: skip


def test_numbers_may_move_a_little_and_no_more() -> None:
    assert differences([ROW], [ROW | {"ours": 1.25}]) == []
    assert "may move" in differences([ROW], [ROW | {"ours": 1.31}])[0]
    assert "verdict" in differences([ROW], [ROW | {"verdict": "holds"}])[0]
    assert "only expected" in differences([ROW], [])[0]
    assert "is None" in differences([ROW], [ROW | {"ours": None}])[0]


def test_every_chapter_that_judges_is_expected() -> None:
    claims = {row["claim"] for row in json.loads(EXPECTED.read_text("utf-8"))}
    assert {"G1", "G2", "P1", "P3", "O1", "A1", "A2", "A3", "A4", "S1", "R1", "R2", "C1", "E1", "D1", "D2"} <= claims
