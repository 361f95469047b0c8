"""Executed chapters by content hash: what makes a chapter be executed again, and what a recalled one says."""

import json
from pathlib import Path

import polars as pl
import pytest

from dare_core import chapter_store
from dare_core.chapter_store import KEPT, chapter_key, inputs, recall, remember
from dare_core.data.logs import prepare


@pytest.fixture
def executed(own_store: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An executed notebook, and a folder of results with a metrics file and a table."""
    results = tmp_path / "results"
    results.mkdir()
    (results / "data.json").write_text(json.dumps({"rows": [], "runs": {"computed": 3, "reused": 1}}), "utf-8")
    (results / "data_cards.csv").write_text("a\n1\n", "utf-8")
    (results / "gradients.json").write_text("{}", "utf-8")
    notebook = tmp_path / "data.ipynb"
    notebook.write_text("executed", "utf-8")
    return notebook, results


def test_a_chapter_comes_back_with_its_results_and_its_trainings_as_reused(
    executed: tuple[Path, Path], tmp_path: Path
) -> None:
    notebook, results = executed
    again = tmp_path / "again"
    again.mkdir()
    assert not recall("data", "abc", again / notebook.name, again)
    remember("data", "abc", notebook, results)
    assert recall("data", "abc", again / notebook.name, again)
    assert (again / notebook.name).read_text("utf-8") == "executed"
    assert {path.name for path in again.iterdir()} == {notebook.name, "data.json", "data_cards.csv"}
    assert json.loads((again / "data.json").read_text("utf-8"))["runs"] == {"computed": 0, "reused": 4}
    assert not recall("data", "abd", again / notebook.name, again)
    (chapter_store.store_root() / "chapters" / "data" / "abc" / "data.json").write_text("damaged", "utf-8")
    assert not recall("data", "abc", again / notebook.name, again)


def test_few_executions_are_kept(executed: tuple[Path, Path]) -> None:
    for key in range(KEPT + 2):
        remember("data", f"{key:016x}", *executed)
    assert len(list((chapter_store.store_root() / "chapters" / "data").iterdir())) == KEPT


def test_notebook_parameters_code_and_logs_make_the_key(
    executed: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook, _ = executed

    def key(**parameters: object) -> str:
        return chapter_key(notebook, {"logs": "generated,mine", "seeds": 3} | parameters)

    first = key()
    assert key() == first and key(seeds=2) != first
    clicks = tmp_path / "clicks.csv"
    pl.DataFrame({"who": [1, 1, 2], "what": [5, 6, 5]}).write_csv(clicks)
    prepare("table", clicks, name="mine", user="who", item="what")
    with_log = key()
    assert with_log != first
    notebook.write_text("another", "utf-8")
    assert key() != with_log
    of_file = inputs({"path": str(clicks), "logs": "mine"})
    assert set(of_file) == {"path"}, "a chapter that reads a file makes its log itself"
    clicks.write_text("who,what\n1,2\n", "utf-8")
    assert inputs({"path": str(clicks)}) != of_file
    last = key()
    monkeypatch.setattr(chapter_store, "code_hash", lambda: "other code")
    assert key() != last
