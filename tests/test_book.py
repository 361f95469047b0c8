"""The book: what its pages may load, and failures that name the chapter."""

import json
import re
import sys
from pathlib import Path

import nbformat
import pytest
from external_resources import external_resources
from jupyter_client.kernelspec import KernelSpecManager

from dare_core import book
from dare_core.book import build_book, execute_chapter, run_study
from dare_core.chapters import COLLECTING, book_parameters, chapter_names, chapter_parameters, read_plan
from dare_core.errors import InputError
from dare_core.report.record import ChapterRecord
from dare_core.report.verdict import Basis
from dare_core.studies.settings import CONFIGS
from dare_core.training.runs import RunStore


def test_pages_that_load_from_the_network_are_found(tmp_path: Path) -> None:
    (tmp_path / "good.html").write_text(
        '<a href="https://example.org">read</a><script src="_static/a.js"></script><img src="data:,x"/>'
        '<link rel="canonical" href="https://example.org/x.html">'
    )
    assert external_resources(tmp_path) == []
    (tmp_path / "bad.html").write_text(
        '<script src="https://example.org/a.js"></script><link rel="stylesheet" href="//example.org/b.css">'
    )
    (tmp_path / "bad.css").write_text("@font-face { src: url(https://example.org/c.woff2) }")
    found = external_resources(tmp_path)
    assert [line.split(": ")[1] for line in found] == [
        "https://example.org/c.woff2",
        "https://example.org/a.js",
        "//example.org/b.css",
    ]


def test_every_chapter_has_a_place_in_the_order_of_execution() -> None:
    order = read_plan("profiles.yml")["order"]
    assert sorted(order) == sorted(chapter_names()) and {name for after in order.values() for name in after} <= {*order}
    assert not {*COLLECTING}.intersection(*order.values()) and {*COLLECTING} <= {*order}


def test_a_failing_cell_names_the_chapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "data.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(book, "notebook_of", lambda name: path)
    with pytest.raises(InputError, match="data.*ZeroDivisionError"):
        execute_chapter("data", {}, tmp_path / "out")


def test_a_kernel_is_this_python_whatever_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = tmp_path / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["false", "{connection_file}"], "display_name": "another environment", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))
    assert KernelSpecManager().get_kernel_spec("python3").argv[0] == "false", "the test can fail"
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import sys; print(sys.executable)")])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = tmp_path / "data.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(book, "notebook_of", lambda name: path)
    executed = nbformat.read(execute_chapter("data", {}, tmp_path / "out"), as_version=4)
    assert executed.cells[-1].outputs[0].text.strip() == sys.executable


def test_parameters_beyond_a_profile_have_results_of_their_own(own_store: Path, tmp_path: Path) -> None:
    config = CONFIGS["convergence"]
    plain, same, other = (
        config.checked(chapter_parameters("convergence", "standard", parameters))
        for parameters in ({}, {"size": "16", "seeds": 3}, {"size": "8"})
    )
    assert plain == same and plain.label == "standard"
    assert plain.results_path == own_store / "book" / "standard" / "results"
    assert re.fullmatch(r"standard\+[0-9a-f]{8}", other.label)
    assert other.results_path == own_store / "book" / other.label / "results"
    placed = config.checked(chapter_parameters("convergence", "standard", {"size": "8", "results": str(tmp_path)}))
    assert (placed.results_path, placed.label) == (tmp_path, other.label)
    assert chapter_parameters("convergence", "standard", {"results": str(tmp_path)})["profile"] == "standard"


def test_a_notebook_by_hand_has_results_of_its_own() -> None:
    config = CONFIGS["convergence"]
    assert config().label == config(results="elsewhere").label == "smoke"
    by_hand = config(size=8)
    assert by_hand.label == chapter_parameters("convergence", "smoke", {"size": "8"})["profile"] != "smoke"
    record = ChapterRecord("convergence", by_hand, RunStore())
    record.judge("C1", "speedup_70", None, Basis("generated", "generated log"), "none")
    content = json.loads(record.write().read_text("utf-8"))
    assert content["config"]["profile"] == content["rows"][0]["profile"] == by_hand.label


def test_a_book_has_one_label() -> None:
    names = ["convergence", "language", "landing"]
    label, merged = book_parameters(names, "standard", {"size": "8", "seeds": "3"}, {})
    assert label != "standard" and {parameters["profile"] for parameters in merged.values()} == {label}
    assert merged["convergence"]["size"] == 8 and "size" not in merged["language"]
    assert book_parameters(names, "standard", {}, {})[0] == "standard"
    assert book_parameters(["convergence"], "standard", {"size": "16"}, {"results": "here"})[0] == "standard"


def test_a_study_s_notebook_lies_by_its_label(own_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(book, "execute_chapter", lambda name, parameters, folder: folder)
    assert run_study("convergence", {}, "standard") == own_store / "notebooks" / "standard"
    label = chapter_parameters("convergence", "standard", {"size": "8"})["profile"]
    assert run_study("convergence", {"size": "8"}, "standard") == own_store / "notebooks" / label


def test_a_folder_that_is_no_book_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a book"):
        build_book("smoke", ["data"], {}, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
