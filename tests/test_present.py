"""What readers see: tables."""

from dare_core.report.show import table, with_intervals


def test_a_number_and_its_bounds_stand_in_one_column() -> None:
    row = {
        "model": "DARE",
        "AUC": 0.75,
        "AUC, low": 0.7,
        "AUC, high": 0.8,
        "lead": None,
        "lead, low": None,
        "lead, high": None,
    }
    assert with_intervals(row) == {"model": "DARE", "AUC [95 %]": "0.7500 [0.7000, 0.8000]", "lead [95 %]": None}
    shown = table([row], "Scores")
    assert '<td class="number">0.7500 [0.7000, 0.8000]</td>' in shown.html and "Scores" in shown.text
    assert with_intervals({"loss": 1.0, "low": 0.5, "high": 2.0}) == {"loss": 1.0, "low": 0.5, "high": 2.0}
