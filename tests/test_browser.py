"""The built book in a real browser: BOOK_HTML=FOLDER python -m pytest tests/test_browser.py

FOLDER is the `_build/html` of a book. Without it, only the tests of these tests run.
"""

import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from browser import Reader, chromium, scheme_of, tab_to
from built_pages import BuiltBook, served
from playwright.sync_api import Browser, Page

from dare_core.report.claims import load_claims

FOLDER = os.environ.get("BOOK_HTML")
BOOK = BuiltBook(Path(FOLDER)) if FOLDER else None
PAGES = BOOK.pages() if BOOK else []
SLIDERS = [page for page in PAGES if BOOK and 'class="explorer"' in (BOOK.folder / page).read_text("utf-8")]
CHOICES = [page for page in PAGES if BOOK and 'class="choice"' in (BOOK.folder / page).read_text("utf-8")]
CLAIMS = load_claims()
LEDGER = json.loads((Path(FOLDER) / "book" / "claims.json").read_text("utf-8")) if FOLDER else []
CLAIMS_PAGE = "book/claims.html"
LANDING = "notebooks/landing.html"
CHAPTERS = sorted({claim.chapter for claim in CLAIMS.values() if not claim.untestable})
WIDTHS, SCHEMES = (1400, 390), ("light", "dark")  # a page is loaded in both; colours are judged in both at each width
A4 = 718  # pixels between the margins
CLEAR = "rgba(0, 0, 0, 0)"
needs_book = pytest.mark.skipif(BOOK is None, reason="BOOK_HTML names no built book (`make test` builds one)")
Readers = Callable[[int, str], Reader]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def readers(browser: Browser) -> Iterator[Readers]:
    """Readers of the book, one for each width and scheme: their pages share scripts and styles."""
    known: dict[tuple[int, str], Reader] = {}
    with ExitStack() as stack:
        address = stack.enter_context(served(Path(FOLDER or "")))

        def reader(width: int, scheme: str) -> Reader:
            if (width, scheme) not in known:
                known[width, scheme] = Reader(browser, address, width, scheme)
            return known[width, scheme]

        yield reader
        for of in known.values():
            of.context.close()


@pytest.fixture(scope="module")
def desk(readers: Readers) -> Reader:
    return readers(1400, "light")


@pytest.fixture(scope="module")
def phone(readers: Readers) -> Reader:
    return readers(390, "light")


@needs_book
@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(("width", "scheme"), [*zip(WIDTHS, SCHEMES, strict=True)])
def test_a_page_has_no_faults(readers: Readers, width: int, scheme: str, page: str) -> None:
    reader = readers(width, scheme)
    with reader.page(page) as shown:
        assert scheme_of(shown) == scheme
        assert "\n".join(reader.faults(shown)) == ""


@needs_book
def test_the_landing_page_has_no_faults_for_a_new_reader(readers: Readers) -> None:
    reader = readers(1400, "")
    with reader.page(LANDING) as shown:
        assert "\n".join(reader.faults(shown)) == ""


@needs_book
@pytest.mark.parametrize("page", BOOK.anchors if BOOK else [])
def test_links_and_downloads_of_a_page_lead_somewhere(page: str) -> None:
    assert BOOK is not None and BOOK.broken_links(page) == []


@needs_book
@pytest.mark.parametrize("claim", CLAIMS)
def test_the_search_finds_where_a_claim_is_judged(desk: Reader, claim: str) -> None:
    with desk.page(f"search.html?q={claim}") as shown:
        shown.get_by_text(re.compile("Search finished|did not match any")).wait_for()
        found = shown.locator("#search-results li a").evaluate_all("links => links.map((a) => a.pathname)")
    judged = (CLAIMS_PAGE, f"notebooks/{CLAIMS[claim].chapter}.html")
    assert any(path.endswith(judged) for path in found), f"found: {found}"


@needs_book
@pytest.mark.parametrize("name", ["verdict", "claim", "log"])
@pytest.mark.parametrize("width", WIDTHS)
def test_claims_are_filtered_by_keys(readers: Readers, width: int, name: str) -> None:
    with readers(width, "light").page(CLAIMS_PAGE) as shown:
        known = shown.locator("table.claims tbody tr").evaluate_all(f"rows => rows.map((row) => row.dataset.{name})")
        wanted = known[-1]
        select = shown.locator(f"select[name={name}]")
        tab_to(shown, select)
        for _ in range(select.locator("option").count()):
            if select.input_value() != wanted:
                shown.keyboard.press("ArrowDown")
        kept = shown.locator("table.claims tbody tr:visible")
        assert {*kept.evaluate_all(f"rows => rows.map((row) => row.dataset.{name})")} == {wanted}
        assert 0 < kept.count() == known.count(wanted) < len(known)
        assert shown.locator("form.filters output").inner_text() == f"{kept.count()} of {len(known)} rows"
        shown.keyboard.press("Home")
        assert kept.count() == len(known)


ORDERED = """(table, [column, down]) => {
  const cells = [...table.tBodies[0].rows].map((row) => row.cells[column]);
  const keys = cells.map((cell) => cell.dataset.sort ?? (cell.querySelector(".judged, a, b") ?? cell).textContent);
  const known = keys.filter((key) => key !== "");
  const late = keys.slice(known.length).every((key) => key === "");
  const numbers = "sort" in cells[0].dataset;
  const steps = known.slice(1).map((key, i) => (numbers ? key - known[i] : key.localeCompare(known[i])));
  return late && steps.some((step) => step !== 0) && steps.every((step) => (down ? step <= 0 : step >= 0));
}"""


@needs_book
@pytest.mark.parametrize("column", range(6))
def test_claims_are_sorted_by_keys(desk: Reader, column: int) -> None:
    with desk.page(CLAIMS_PAGE) as shown:
        table = shown.locator("table.claims")
        head = table.locator("thead th").nth(column)
        rows = table.locator("tbody tr").count()
        tab_to(shown, head.locator("button"))
        for key, order in (("Enter", "ascending"), ("Space", "descending")):
            shown.keyboard.press(key)
            assert head.get_attribute("aria-sort") == order
            assert table.evaluate(ORDERED, [column, order == "descending"]), f"not {order}"
            assert table.locator("thead [aria-sort]").count() == 1 and table.locator("tbody tr").count() == rows


@needs_book
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", SLIDERS)
def test_the_number_of_retrieved_behaviours_is_chosen_by_keys(readers: Readers, page: str, width: int) -> None:
    with readers(width, "light").page(page) as shown:
        explorer = shown.locator(".explorer")
        slider = explorer.locator("input")
        known = explorer.locator("tbody tr").evaluate_all("rows => rows.map((row) => row.dataset.k)")
        numbers = (slider.get_attribute("data-numbers") or "").split(",")
        assert {*numbers} == {*known} and len(numbers) > 1
        tab_to(shown, slider)
        shown.keyboard.press("Home")
        for number in numbers:
            rows = explorer.locator("tbody tr:visible")
            assert rows.evaluate_all("rows => rows.map((row) => row.dataset.k)") == [number] * known.count(number)
            assert explorer.locator("output").inner_text() == number
            assert slider.get_attribute("aria-valuetext") == f"K = {number}"
            shown.keyboard.press("ArrowRight")


@needs_book
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", CHOICES)
def test_one_of_several_figures_is_chosen_by_keys(readers: Readers, page: str, width: int) -> None:
    with readers(width, "light").page(page) as shown:
        choice = shown.locator(".choice")
        names = choice.locator("option").all_inner_texts()
        assert len(names) > 1
        captions = []
        tab_to(shown, choice.locator("select"))
        for name in names:
            part = choice.locator(":scope > div:visible")
            assert part.count() == 1
            captions.append(part.locator("figcaption").inner_text())
            assert f": {name};" in captions[-1]
            shown.keyboard.press("ArrowDown")
        assert len(set(captions)) == len(names)


OUTSIDE = """(selector) => {
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
  const page = document.querySelector(".bd-article").getBoundingClientRect();
  const right = Math.min(page.right, document.documentElement.clientWidth) + 0.5;
  const drawn = [...document.querySelectorAll(selector)].filter((e) => e.checkVisibility());
  const boxes = drawn.map((e) => e.getBoundingClientRect());
  const out = drawn.filter((e, i) => boxes[i].width < 1 || boxes[i].left < 0 || boxes[i].right > right);
  return [drawn.length, out.map((e) => e.outerHTML.slice(0, 160))];
}"""


def missing(shown: Page, verdicts: dict[str, str]) -> list[str]:
    """Claims whose verdicts, found by selectors, are not drawn between the edges of the text."""
    found = []
    for claim, selector in verdicts.items():
        count, out = shown.evaluate(OUTSIDE, selector)
        if out or not count:
            found.append(f"{claim}: {count} verdicts, outside: {out}")
    return found


@needs_book
@pytest.mark.parametrize(
    ("page", "selector"),
    [(CLAIMS_PAGE, "tr[data-claim={}] .judged"), (LANDING, ".map .judged:has(a[href$='#{}'])")],
)
def test_verdicts_of_all_claims_are_on_the_screen_of_a_phone(phone: Reader, page: str, selector: str) -> None:
    claims = CLAIMS if page == CLAIMS_PAGE else {row["claim"] for row in LEDGER if row["primary"] and row["log"]}
    with phone.page(page) as shown:
        assert missing(shown, {claim: selector.format(claim) for claim in claims}) == []


def missing_of_chapter(shown: Page, chapter: str) -> list[str]:
    """Claims of a chapter that have a number, and whose strips have no verdict; any verdict beyond the edges."""
    measured = {row["claim"] for row in LEDGER if row["primary"] and row["ours"] is not None}
    own = [name for name in CLAIMS if CLAIMS[name].chapter == chapter and name in measured]
    return missing(shown, {name: f".strip#{name} .judged" for name in own} | {"all": ".strip .judged"})


@needs_book
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_verdicts_of_a_chapter_are_on_the_screen_of_a_phone(phone: Reader, chapter: str) -> None:
    with phone.page(f"notebooks/{chapter}.html") as shown:
        assert missing_of_chapter(shown, chapter) == []


@needs_book
@pytest.mark.parametrize("chapter", CHAPTERS)
def test_verdicts_of_a_chapter_are_printed_dark_on_light(readers: Readers, chapter: str) -> None:
    with readers(A4, "dark").page(f"notebooks/{chapter}.html") as shown:
        shown.emulate_media(media="print")
        shown.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert shown.evaluate("getComputedStyle(document.body).backgroundColor") in ("rgb(255, 255, 255)", CLEAR)
        assert shown.evaluate("getComputedStyle(document.querySelector('h1')).color") != "rgb(255, 255, 255)"
        assert missing_of_chapter(shown, chapter) == []
        assert shown.locator("details.hide > summary:visible").count() == 0
        shown.evaluate("dispatchEvent(new Event('afterprint'))")
        assert scheme_of(shown) == "dark"


BROKEN = """<!DOCTYPE html><html data-theme="light"><head><title>Broken</title></head><body>
<p style="color: #ccc; background: #fff">pale</p><div style="width: 3000px">wide</div>
<button aria-label="another name">written</button><img src="https://example.org/x.png" alt="">
<script>console.error("said"); undefined_name();</script><a href="nowhere.html">a</a><a href="#nowhere">b</a>
<a href="empty.csv">c</a></body></html>"""


def test_faults_of_a_page_are_found(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    with served(tmp_path) as address:
        reader = Reader(browser, address, 390, "light")
        with reader.page("broken.html") as shown:
            found = "\n".join(reader.faults(shown))
        reader.context.close()
    for fault in ("undefined_name", "console: said", "https://example.org/x.png", "3000px", "color-contrast"):
        assert fault in found
    assert "light: label-content-name-mismatch" in found and "html-has-lang" in found and "dark: color" in found


def test_links_to_nothing_are_found(tmp_path: Path) -> None:
    (tmp_path / "broken.html").write_text(BROKEN)
    (tmp_path / "empty.csv").touch()
    found = BuiltBook(tmp_path).broken_links("broken.html")
    assert found == ["nowhere.html: no such file", "#nowhere: no such place", "empty.csv: empty"]
