"""The book: what its pages may load, and failures that name the chapter."""

from pathlib import Path

import nbformat
import pytest

from dare_core import book
from dare_core.book import build_book, chapter_names, execute_chapter, external_resources, read_plan
from dare_core.chapter_store import COLLECTING
from dare_core.errors import InputError


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
    path = tmp_path / "01_data.ipynb"
    nbformat.write(notebook, path)
    monkeypatch.setattr(book, "notebook_of", lambda name: path)
    with pytest.raises(InputError, match="data.*ZeroDivisionError"):
        execute_chapter("data", {}, tmp_path / "out")


def test_a_folder_that_is_no_book_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="not a book"):
        build_book("smoke", ["data"], {}, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "precious"
