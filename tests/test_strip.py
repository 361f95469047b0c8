"""The strip that opens a chapter, and the slider over K: their numbers are those of the rows."""

import re
from pathlib import Path

import pytest
from test_pages import CLAIMS, row

from dare_core.files import write_json
from dare_core.report import record as module
from dare_core.report.ledger import number
from dare_core.report.pages import explorer
from dare_core.report.strip import claim_strip, place_of
from dare_core.report.verdict import LedgerRow


def places(html: str, kind: str) -> list[float]:
    """Where the marks of a kind lie, in per cent."""
    return [float(text) for text in re.findall(rf'<i class="{kind}" style="left:([\d.]+)%', html)]


def test_a_line_per_log_with_the_largest_first() -> None:
    rows = [
        row("A3", "ndcg_dare_over_twin", "complete_journey", "absent", 1.05),
        row("A3", "ndcg_dare_over_twin", "world_100m", "holds", 1.58),
        row("A3", "ndcg_dare_over_din", "world_100m", "holds", 1.2),
    ]
    shown = claim_strip(CLAIMS, rows, rows[:1])
    lines = re.findall(r"<li.*?</li>", shown.html, re.S)
    assert [re.search(r'class="log">(.*?) <', line)[1] for line in lines] == [  # type: ignore[index]
        "World 100M",
        "Complete Journey",
        "World 100M",
    ]
    assert "✔</span> holds" in lines[0] and "○</span> absent" in lines[1]
    assert number(1.58) in lines[0] and 'id="A3"' in shown.html
    large, small = places(lines[0], "dot")[0], places(lines[1], "dot")[0]
    null, paper = places(lines[0], "null")[0], places(lines[0], "paper")[0]
    assert 0 < null < small < paper < large < 100  # 1 < 1.05 < 1.465 < 1.58
    assert shown.text == "A3* ndcg_dare_over_twin on complete_journey: absent"


def test_ratios_lie_on_the_log_scale_and_wide_intervals_are_cut() -> None:
    quantity = CLAIMS["G1"].of("norm_ratio")
    place = place_of(quantity, [row("G1", "norm_ratio", "generated", "holds", 25.0)])
    assert abs((place(5) - place(1)) - (place(25) - place(5))) < 0.05
    wide = row("O1", "dare_minus_twin", "generated", "undecided", 0.01).model_copy(update={"low": -5.0, "high": 5.0})
    place = place_of(CLAIMS["O1"].of("dare_minus_twin"), [wide])
    assert place(-5) == 0 and place(5) == 100 and 0 < place(0) < place(0.0088) < 100


def test_a_claim_without_a_number_says_so() -> None:
    line = LedgerRow(claim="O2", quantity="gain_16_minus_gain_128", primary=True, verdict="not studied yet")
    shown = claim_strip(CLAIMS, [line], [line])
    assert "Not measured yet" in shown.html and "<li" not in shown.html


def test_the_slider_shows_the_rows_of_every_number_retrieved() -> None:
    scores = [
        {"log": log, "varied": varied, "K": k, "model": model, "AUC": auc and auc + k / 1000, "best rule": 0.9}
        | {"DARE minus it": lead, "DARE minus it, low": lead, "DARE minus it, high": lead}
        for log in ("world_100m", "generated")
        for varied, k in (("K", 5), ("K", 100), ("N", 20))
        for model, auc, lead in (("DARE", 0.81, None), ("TWIN", 0.8, 0.0123), ("random", None, None))
    ]
    shown = explorer(scores)
    lines = re.findall(r"<tr data-k.*?</tr>", shown.html, re.S)
    assert len(lines) == 4 and all("0.0123" in line for line in lines)
    assert 'data-numbers="5,100"' in shown.html and 'value="0"' in shown.html  # 5 is nearer to 20
    assert "0.8150" in lines[0] and "0.8050" in lines[0] and "World 100M" in lines[0]
    assert explorer(scores[:1]).html == ""


def test_a_chapter_shows_what_is_stored_of_its_claims_and_was_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored = [
        row("O2", "gain_16_minus_gain_128", "world_100m", "holds"),
        row("A3", "ndcg_dare_over_twin", "world_100m", "holds"),
    ]
    write_json(tmp_path / "overall.json", {"rows": [line.model_dump() for line in stored]})
    monkeypatch.setattr(module, "stored_folders", lambda: [tmp_path])
    own = [row("O1", "dare_minus_twin", "generated", "undecided")]
    record = module.ChapterRecord("overall", module.ChapterConfig(), None, rows=own)  # type: ignore[arg-type]
    shown = record.strip()
    assert re.findall(r'class="strip" id="(\w+)"', shown.html) == ["O1", "O2"], "in the ledger's order, no other's"
    assert shown.text.count("\n") == 0 and "O1" in shown.text
