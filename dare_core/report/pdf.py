"""The book on paper: its pages as one, printed by the system's Chromium."""

import os
import shutil
from pathlib import Path

from dare_core.errors import InputError
from dare_core.files import atomic_path

NAMES = ("chromium", "chromium-browser", "google-chrome")
READY = """async () => {
    document.querySelectorAll("details.sd-dropdown").forEach((fold) => (fold.open = true));
    if (window.MathJax?.startup) await MathJax.startup.promise;
    await document.fonts.ready;
}"""
"""Before it is printed: answers and notes are opened, formulas are set. Long tables stay folded; pages have them."""


def system_chromium() -> str:
    """Path of the system's Chromium. Raises InputError where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise InputError("there is no Chromium: install the system's package (Debian: apt-get install chromium).")
    return found


def print_pages(page: Path, pdf: Path) -> None:
    """Print a page to a PDF file, A4, with page numbers. Raises InputError without a Chromium."""
    from playwright.sync_api import sync_playwright

    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    number = '<div style="font-size:8px;width:100%;text-align:center"><span class="pageNumber"></span></div>'
    margin = {"top": "16mm", "bottom": "16mm", "left": "14mm", "right": "14mm"}
    with sync_playwright() as playwright, atomic_path(pdf) as temporary:
        browser = playwright.chromium.launch(executable_path=system_chromium(), args=alone)
        try:
            shown = browser.new_page(viewport={"width": 1000, "height": 1400}, color_scheme="light")
            shown.goto(page.resolve().as_uri(), wait_until="load", timeout=120_000)
            shown.evaluate(READY)
            shown.pdf(
                path=str(temporary),
                format="A4",
                margin=margin,  # type: ignore[arg-type]
                scale=0.75,
                print_background=True,
                display_header_footer=True,
                header_template="<span></span>",
                footer_template=number,
            )
        finally:
            browser.close()
