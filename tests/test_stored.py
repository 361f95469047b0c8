"""Results stored with the project: what is kept of a finished one, and that what lies there obeys the rules."""

import json
import re
from pathlib import Path

import pytest

from dare_core.chapters import chapter_names, notebook_of
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Interval
from dare_core.files import project_root
from dare_core.report import stored
from dare_core.report.claims import load_claims
from dare_core.report.verdict import LedgerRow, judge
from dare_core.studies.experiment import LEARNED

STORED = sorted((project_root() / "book" / "stored").rglob("*.json"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of stored results."""
    monkeypatch.setattr(stored, "stored_folder", lambda: tmp_path / "stored")
    return tmp_path


def metrics(folder: Path, chapter: str = "attention") -> Path:
    """A metrics file with a table that is kept, and one of single behaviours that is not."""
    row = {"claim": "A3", "quantity": "ndcg_dare_over_twin", "log": "mine", "verdict": "undecided", "ours": 1.1}
    path = folder / f"{chapter}.json"
    tables = {"retrieval": [{"log": "mine", "NDCG": 0.5}], "controls": [], "cases": [{"user": 1}]}
    machine = {"processor": "P", "threads": 2, "torch": "2.13.0"}
    rows = [row, row | {"log": None, "quantity": "search_time_half"}]
    content = {"chapter": chapter, "rows": rows, "tables": tables, "date": "2026-01-01", "environment": machine}
    path.write_text(json.dumps(content | {"config": {"seeds": 3}}), "utf-8")
    return path


def test_aggregates_are_kept_and_single_behaviours_are_not(folder: Path) -> None:
    assert stored.stored_result("attention") is None and stored.further_results("attention") == {}
    stored.keep(metrics(folder))
    place = stored.keep(metrics(folder), "mine")
    assert place == folder / "stored" / "further" / "mine" / "attention.json"
    content = stored.stored_result("attention")
    assert content is not None and set(content["tables"]) == {"retrieval", "controls"}
    quantities = ["ndcg_dare_over_twin", "search_time_half"]
    assert [line["quantity"] for line in content["rows"]] == quantities
    further = stored.further_results("attention")["mine"]["rows"]
    assert [line["quantity"] for line in further] == quantities[:1], "a time is of no log"
    shown = stored.show_stored_table("attention", "retrieval", "Retrieval")
    assert "3 seeds" in shown.text and "--profile full" in shown.text and "2026-01-01" in shown.text
    stored.write_stored_tables(["attention", "language"], folder / "tables")
    assert {path.name for path in (folder / "tables").iterdir()} == {
        "attention_retrieval.csv",
        "mine_attention_retrieval.csv",
    }


def test_what_is_no_metrics_file_is_refused(folder: Path) -> None:
    for path in (folder / "missing.json", metrics(folder, "landing")):
        with pytest.raises(InputError, match="not the metrics file"):
            stored.keep(path)


@pytest.mark.parametrize("path", STORED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_stored_verdicts_follow_from_the_rule(path: Path) -> None:
    claims = load_claims()
    content = json.loads(path.read_text("utf-8"))
    assert set(content["tables"]) <= {*stored.KEPT[content["chapter"]]}, "only aggregates are stored"
    assert content["rows"] or path.stem not in {claim.chapter for claim in claims.values()}
    for row in (LedgerRow.model_validate(entry) for entry in content["rows"]):
        entry = claims[row.claim].of(row.quantity)
        assert row.paper == entry.paper
        if row.ours is None or row.low is None or row.high is None:
            assert row.verdict == "cannot be tested here"
            continue
        found = judge(entry, Interval(row.ours, row.low, row.high, float("nan"), 1, row.seeds or 0))
        assert (row.direction, row.size) == (found.direction, found.size) or not entry.judged
        assert row.verdict in (found.verdict, "cannot be tested here", "undecided")
        learned = row.competence is None or row.competence >= LEARNED
        several = (row.worlds or 3) >= 3 and (row.seeds or 2) >= 2
        assert row.verdict == "cannot be tested here" or (learned and several)


def test_links_to_stored_tables_lead_somewhere() -> None:
    links = {
        link
        for name in chapter_names()
        for link in re.findall(r"results/stored/(\w+)\.csv", notebook_of(name).read_text("utf-8"))
    }
    there = {
        ("" if path.parent.name == "stored" else f"{path.parent.name}_") + f"{path.stem}_{name}"
        for path in STORED
        for name, lines in json.loads(path.read_text("utf-8"))["tables"].items()
        if lines
    }
    assert links <= there
