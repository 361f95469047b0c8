"""Chromium, and what it finds at fault in a page that it shows."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, sync_playwright

from dare_core.errors import InputError
from dare_core.report.pdf import system_chromium

GRAVE = ("serious", "critical")
RULES: dict[str, Any] = {
    "rules": {"label-content-name-mismatch": {"enabled": True}},
    "resultTypes": ["violations"],
    "preload": False,
}
"""axe's own rules, and one that it leaves out by itself: what is read out is what is written. It loads no style sheets
of its own accord: it takes their addresses for those of the page."""
TABS = 300
"""Most presses of Tab on the way to something."""
OPEN = """(most) => {
  const seen = {};
  for (const fold of document.querySelectorAll("details")) {
    seen[fold.className] = (seen[fold.className] ?? 0) + 1;
    fold.open = seen[fold.className] <= most;
  }
}"""
OVERHANG = """() => {
  const root = document.documentElement, wide = root.clientWidth;
  if (root.scrollWidth <= wide) return null;
  const clips = (e) => e !== root && e !== document.body && getComputedStyle(e).overflowX !== "visible";
  const cut = (e) => { for (; e; e = e.parentElement) if (clips(e)) return true; return false; };
  const over = [...document.body.querySelectorAll("*")].filter(
    (e) => e.getBoundingClientRect().right > wide + 1 && !cut(e.parentElement));
  return `${root.scrollWidth} px on ${wide}: ` + over.slice(-3).map((e) => e.outerHTML.slice(0, 120)).join(" | ");
}"""


@contextmanager
def chromium() -> Iterator[Browser]:
    """The system's Chromium without a network. Skips where there is none, unless BROWSER_REQUIRED is set."""
    try:
        path = system_chromium()
    except InputError as error:
        pytest.fail(str(error)) if os.environ.get("BROWSER_REQUIRED") else pytest.skip(str(error))
    arguments = ["--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--disable-gpu"]
    if os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium does not start for root with it
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Reader:
    """Opens the pages below an address at one width, in one scheme; "" for a reader who has not chosen one."""

    def __init__(self, browser: Browser, address: str, width: int, scheme: str) -> None:
        self.address = address
        self.heard: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": width, "height": 900},
            color_scheme="dark" if scheme == "dark" else "light",
            reduced_motion="reduce",  # colours that are on their way have no contrast to judge
        )
        if scheme:
            store = "".join(f"localStorage.setItem({key!r}, {scheme!r});" for key in ("mode", "theme"))
            self.context.add_init_script(store)

    @contextmanager
    def page(self, name: str) -> Iterator[Page]:
        """A page that has loaded; what it complains of meanwhile is in `heard`."""
        self.heard.clear()
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.heard.append(f"script error: {error}"))
        page.on("console", self._said)
        page.on("request", lambda request: self._asked(request.url))
        page.goto(self.address + name)
        page.evaluate("window.MathJax?.startup?.promise.then(() => null)")
        yield page
        page.close()

    def _said(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.heard.append(f"console: {said.text} ({said.location['url']})")

    def _asked(self, url: str) -> None:
        if not url.startswith((self.address, "data:", "blob:")):
            self.heard.append(f"request to another place: {url}")

    def faults(self, page: Page) -> list[str]:
        """Script errors, requests to other places, what overhangs at the right, and axe's grave violations; of colours
        in the other scheme too.

        Axe reads the first folds of each kind (there are hundreds, and their text looks the same).
        """
        found = []
        for folds in (0, 10_000, 2):
            page.evaluate(OPEN, folds)
            overhang = page.evaluate(OVERHANG)
            found += [f"wider than the window, {folds} folds open: {overhang}"] if overhang else []
        found += _violations(page, RULES)
        page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", other_scheme(page))
        found += _violations(page, RULES | {"runOnly": ["color-contrast"]})
        return [*dict.fromkeys(self.heard), *found]


def scheme_of(page: Page) -> str:
    """The scheme that a page is shown in."""
    return str(page.evaluate("document.documentElement.dataset.theme"))


def other_scheme(page: Page) -> str:
    """The scheme that it is not shown in."""
    return "light" if scheme_of(page) == "dark" else "dark"


def _violations(page: Page, options: dict[str, Any]) -> list[str]:
    """What axe finds, with the first places of each rule."""
    found = []
    for violation in Axe().run(page, options=options).response["violations"]:
        if violation["impact"] in GRAVE:
            places = [f"{node['target']} {_colours(node)}" for node in violation["nodes"]]
            found.append(f"{scheme_of(page)}: {violation['id']} ({len(places)}): " + "; ".join(places[:5]))
    return found


def _colours(node: dict[str, Any]) -> str:
    """What axe measured of a place, where it measured something."""
    return json.dumps([check["data"] for check in node["any"] if check.get("data")])


def tab_to(page: Page, goal: Locator) -> None:
    """Press Tab until the goal has the focus."""
    for _ in range(TABS):
        page.keyboard.press("Tab")
        if goal.evaluate("goal => goal === document.activeElement"):
            return
    raise AssertionError(f"{goal} cannot be reached by Tab")
