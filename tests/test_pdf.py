"""The printed book."""

import os
import shutil
from pathlib import Path

import pytest

from dare_core.book import build_book
from dare_core.errors import InputError
from dare_core.report.pdf import NAMES, print_pages

needs_chromium = pytest.mark.skipif(
    not any(map(shutil.which, NAMES)) and not os.environ.get("BROWSER_REQUIRED"),
    reason="there is no Chromium: apt-get install chromium",
)
PAGE = '<html><body><details class="sd-dropdown"><summary>Answer</summary><p>{}</p></details></body></html>'


@needs_chromium
def test_a_page_is_printed_with_its_answers_open(tmp_path: Path) -> None:
    sizes = []
    for name, answer in (("short", "yes"), ("long", "a long answer, " * 20_000)):
        (tmp_path / f"{name}.html").write_text(PAGE.format(answer), "utf-8")
        print_pages(tmp_path / f"{name}.html", tmp_path / f"{name}.pdf")
        content = (tmp_path / f"{name}.pdf").read_bytes()
        assert content.startswith(b"%PDF-")
        sizes.append(len(content))
    assert sizes[1] > 2 * sizes[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.html", "long.pdf", "short.html", "short.pdf"]


def test_without_a_browser_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="apt-get install chromium"):
        build_book("smoke", ["data"], {}, tmp_path / "book", pdf=True)
    assert not (tmp_path / "book").exists()
