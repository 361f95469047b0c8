"""The ledger: every claim is there, the rule judges as stated, and nothing is judged before models have learned."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dare_core.evaluation.intervals import Interval, interval, ratio_interval
from dare_core.files import write_json
from dare_core.report import ledger as module
from dare_core.report.claims import Quantity, load_claims
from dare_core.report.ledger import joined, ledger, number, verdict_line, write_ledger
from dare_core.report.verdict import Basis, LedgerRow, judge, row

NEEDING = "P1 P2 O1 O2 O3 O4 O5 A2 A3 A4 R1 R2 C1 E1 D1 D2"
IDS = f"G1 G2 P3 S1 A1 T1 {NEEDING}".split()
FIELDS = (
    "claim quantity primary log kind training_samples profile paper ours low high seeds worlds direction size "
    "competence verdict rebuilt note"
)
DIFFERENCE = Quantity(quantity="difference", meaning="", paper=0.010, null=0.0, direction="greater")
RATIO = Quantity(quantity="ratio", meaning="", paper=4.0, null=1.0, direction="greater", scale="log")
LESS = Quantity(quantity="slope", meaning="", paper=-2.0, null=0.0, direction="less")
PICTURE = Quantity(quantity="picture", meaning="", paper=None, null=0.0, direction="greater")
MARGIN = Quantity(quantity="margin", meaning="", paper=None, null=0.0, direction="greater", margin=0.01)
NONE_HELPS = Quantity(quantity="variants", meaning="", paper=None, null=0.0, direction="less", tolerance=0.005)
LOG = Basis("a log", "published log", "f", 16, 100_000, seeds=3)


def measured(estimate: float, low: float, high: float) -> Interval:
    return Interval(estimate, low, high, (high - low) / 4, 30.0, 3)


def test_every_claim_of_the_study_is_there_with_one_primary_quantity() -> None:
    claims = load_claims()
    assert set(IDS) <= set(claims)
    for claim in claims.values():
        assert claim.quantities and claim.claim and claim.source
        names = [q.quantity for q in claim.quantities]
        assert len(names) == len(set(names))
        (primary,) = (q for q in claim.quantities if q.primary)
        assert primary.reason, claim.id
    assert claims["T1"].untestable
    needing = {name for name, claim in claims.items() if claim.needs_competence}
    assert needing == set(NEEDING.split())


@pytest.mark.parametrize(
    ("quantity", "values", "direction", "size", "verdict"),
    [
        (DIFFERENCE, (0.009, 0.007, 0.011), "claimed", "at least half", "holds"),
        (DIFFERENCE, (0.006, 0.001, 0.011), "claimed", "undecided", "holds"),
        (DIFFERENCE, (0.003, 0.002, 0.004), "claimed", "less than half", "holds, smaller"),
        (DIFFERENCE, (-0.003, -0.004, -0.002), "other", "less than half", "contradicted"),
        (DIFFERENCE, (0.001, -0.002, 0.004), "neither", "less than half", "absent"),
        (DIFFERENCE, (0.001, -0.006, 0.004), "neither", "less than half", "undecided"),
        (DIFFERENCE, (0.004, -0.002, 0.010), "neither", "undecided", "undecided"),
        (RATIO, (2.1, 1.5, 3.0), "claimed", "undecided", "holds"),
        (RATIO, (1.9, 1.5, 2.4), "claimed", "undecided", "holds, smaller"),
        (RATIO, (0.5, 0.3, 0.9), "other", "less than half", "contradicted"),
        (RATIO, (1.1, 0.7, 1.6), "neither", "less than half", "absent"),
        (RATIO, (1.1, 0.4, 1.6), "neither", "less than half", "undecided"),
        (LESS, (-1.5, -2.0, -1.0), "claimed", "at least half", "holds"),
        (LESS, (0.5, 0.1, 0.9), "other", "less than half", "contradicted"),
        (PICTURE, (0.1, 0.01, 0.2), "claimed", None, "holds"),
        (PICTURE, (0.1, -0.01, 0.2), "neither", None, "undecided"),
        (PICTURE, (-0.1, -0.2, -0.01), "other", None, "contradicted"),
        (MARGIN, (0.0, -0.009, 0.009), "neither", None, "absent"),
        (NONE_HELPS, (0.002, -0.001, 0.004), "claimed", None, "holds"),
        (NONE_HELPS, (0.004, -0.001, 0.006), "neither", None, "undecided"),
        (NONE_HELPS, (0.003, 0.001, 0.004), "other", None, "contradicted"),
        (RATIO, (float("nan"), 0.1, 1.0), None, None, "cannot be tested here"),
    ],
)
def test_rule(quantity: Quantity, values: tuple[float, float, float], direction: str, size: str, verdict: str) -> None:
    found = judge(quantity, measured(*values))
    assert (found.direction, found.size, found.verdict) == (direction, size, verdict)


def test_notes_on_size_and_power() -> None:
    assert "more than twice" in judge(DIFFERENCE, measured(0.03, 0.02, 0.04)).note
    weak = Interval(0.03, 0.001, 0.06, 0.0148, 30.0, 3)
    assert "inflated" in judge(DIFFERENCE, weak).note
    assert "finds half the paper's effect in 5% of cases" in judge(DIFFERENCE, replace(weak, low=-0.001)).note


@pytest.mark.parametrize("effect", [0.0, 0.3])
def test_a_difference_of_nothing_is_seldom_judged_and_one_that_is_there_is_found(effect: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [interval(rng.normal(effect, 0.1, (5, 1))) for _ in range(2_000)]
    directions = [judge(PICTURE, part).direction for part in drawn]
    alarms = np.mean([direction != "neither" for direction in directions])
    assert alarms <= 0.06 if effect == 0 else alarms > 0.95


def test_ratios_of_equal_models_are_seldom_judged() -> None:
    """As C1 and A3: two sets of positive numbers of one distribution."""
    rng = np.random.default_rng(1)
    drawn = [ratio_interval(*np.exp(rng.normal(0, 0.5, (2, 3, 1)))) for _ in range(2_000)]
    assert np.mean([judge(RATIO, part).direction != "neither" for part in drawn]) <= 0.06


def test_gates_come_before_verdicts() -> None:
    claims = load_claims()
    good = measured(0.02, 0.01, 0.03)

    def verdict(claim: str, quantity: str, basis: Basis, **more: str) -> LedgerRow:
        return row(claims[claim], quantity, good, basis, "smoke", **more)

    assert verdict("O1", "dare_minus_twin", LOG).verdict == "holds"
    unlearned = replace(LOG, not_learned="the models have not learned: competence 0.41", competence=0.41)
    refused = verdict("O1", "dare_minus_twin", unlearned)
    assert refused.verdict == "cannot be tested here" and "competence 0.41" in refused.note
    assert refused.ours == 0.02 and refused.direction == "claimed", "the number is shown all the same"
    assert verdict("A1", "same_minus_other", unlearned).verdict == "holds", "says nothing about models"
    assert "1 of at least 2 seeds" in verdict("O1", "dare_minus_twin", replace(LOG, seeds=1)).note
    worlds = replace(LOG, kind="generated log", worlds=2)
    assert "2 of at least 3 worlds" in verdict("O1", "dare_minus_twin", worlds).note
    enough = replace(worlds, worlds=3)
    assert verdict("O1", "dare_minus_twin", enough).verdict == "holds"
    assert "built into" in verdict("A1", "same_minus_other", enough).note
    assert "not judged" in verdict("E1", "search_time_half", LOG).note
    blocked = verdict("G1", "norm_ratio", LOG, blocked="95 of at least 300 recorded steps")
    assert blocked.verdict == "cannot be tested here" and "95" in blocked.note


def test_another_direction_at_the_own_best_setting_leaves_it_undecided() -> None:
    claim = load_claims()["D1"]
    good, same, other = measured(0.02, 0.01, 0.03), measured(0.01, 0.002, 0.02), measured(0.001, -0.01, 0.012)
    assert row(claim, "advantage_few_minus_many", good, LOG, "smoke", own_best=same).verdict == "holds"
    undecided = row(claim, "advantage_few_minus_many", good, LOG, "smoke", own_best=other)
    assert undecided.verdict == "undecided" and "own best setting" in undecided.note


@pytest.fixture
def no_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "stored_folder", lambda: tmp_path / "stored")
    return tmp_path


def test_ledger_joins_claims_and_measurements(no_stored: Path) -> None:
    claims = load_claims()
    line = row(claims["G1"], "norm_ratio", measured(4.0, 3.0, 5.0), LOG, "smoke")
    write_json(no_stored / "gradients.json", {"rows": [line.model_dump()], "config": {}})
    rows = ledger(no_stored, "smoke")
    assert [r for r in rows if r.quantity == "norm_ratio"] == [line]
    assert {r.claim for r in rows} >= set(IDS)
    assert {r.verdict for r in rows if r.claim == "P1"} == {"not studied yet"}
    assert {r.verdict for r in rows if r.claim == "T1"} == {"cannot be tested here"}
    written = json.loads(write_ledger(no_stored, "smoke").read_text())
    assert all(set(FIELDS.split()) <= set(entry) for entry in written)
    assert [LedgerRow.model_validate(entry) for entry in written] == rows


def test_a_stored_result_and_the_builds_are_one_row_where_log_and_size_agree(no_stored: Path) -> None:
    claim = load_claims()["D1"]

    def line(profile: str, value: float, **changes: object) -> LedgerRow:
        basis = replace(LOG, **changes)
        return row(claim, "advantage_few_minus_many", measured(value, value - 0.01, value + 0.01), basis, profile)

    stored, built = line("full", 0.02), line("standard", 0.03)
    (one,) = joined([stored], [built])
    assert (one.ours, one.rebuilt, one.profile) == (0.02, 0.03, "full")
    assert len(joined([stored], [line("standard", 0.03, fingerprint="g")])) == 2
    assert len(joined([stored], [line("standard", 0.03, embedding_size=64)])) == 2
    write_json(no_stored / "stored" / "retrieval_number.json", {"rows": [stored.model_dump()], "config": {}})
    write_json(no_stored / "retrieval_number.json", {"rows": [built.model_dump()], "config": {}})
    (found,) = (r for r in ledger(no_stored, "standard") if r.quantity == "advantage_few_minus_many")
    assert found == one


def test_numbers_keep_digits_that_say_something() -> None:
    assert [number(v) for v in (0.5, 0.0123, 1.5, 1234.5, None, float("nan"))] == [
        "0.5000", "0.0123", "1.500", "1,234.5", "–", "–",
    ]  # fmt: skip
    assert number(0.0000123) == "0.000012"


def test_verdict_lines_name_claim_quantity_log_and_verdict() -> None:
    line = row(load_claims()["D1"], "advantage_few_minus_many", measured(0.02, 0.01, 0.03), LOG, "smoke")
    assert verdict_line(line) == "D1* advantage_few_minus_many on a log: holds"
