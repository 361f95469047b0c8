"""From notebooks to a book: execute the chapters with papermill, build them with Jupyter Book.

A book lies in one folder (`<store>/book/<label>` unless told otherwise): `source/` what it is built from, executed
notebooks included; `_build/html/` the pages, which fetch nothing from the network. The chapters' metrics and
`ledger.json` lie in the label's results folder.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import nbformat
import papermill
import yaml
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from dare_core.chapter_store import chapter_key, recall, remember, results_of
from dare_core.chapters import (
    COLLECTING,
    book_parameters,
    chapter_parameters,
    execution_order,
    is_page,
    notebook_of,
    read_plan,
    row_commands,
)
from dare_core.errors import InputError
from dare_core.files import project_root, store_root
from dare_core.report.claims import load_claims
from dare_core.report.ledger import chapter_results, ledger, results_folder, write_ledger
from dare_core.report.pages import claims_table, write_downloads
from dare_core.report.pdf import print_pages, system_chromium
from dare_core.report.stored import write_stored_tables
from dare_core.schedule import run_in_order

MATHJAX = "tex-svg-full.js"  # named in _config.yml too
PDF = "book.pdf"  # beside the pages


class BookResult(NamedTuple):
    """A finished book: its first page, the ledger, and where it was printed."""

    index_html: Path
    ledger: Path
    pdf: Path | None


class _ThisPython(AsyncKernelManager):
    """Starts kernels of the Python that runs now, whichever one the user has registered under their name."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """How a kernel is started."""
        return KernelSpec(**get_kernel_dict())


def execute_chapter(name: str, parameters: dict[str, Any], out_dir: Path) -> Path:
    """Execute a chapter with papermill in this environment; returns the executed notebook in `out_dir`.

    `parameters` are taken as checked. Raises InputError for a cell that fails: the chapter, the cell (counted
    from 0), the error's last line, and where the partly executed notebook lies.
    """
    source = notebook_of(name)
    out_dir.mkdir(parents=True, exist_ok=True)
    executed = out_dir / source.name
    try:
        papermill.execute_notebook(
            source,
            executed,
            parameters,
            kernel_name="python3",
            kernel_manager_class=_ThisPython,
            progress_bar=False,
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
        return executed
    except PapermillExecutionError as error:
        last = (str(error.evalue).strip().splitlines() or ["no message"])[-1]
        what = f"cell {error.cell_index}: {error.ename}: {last}"
    except RuntimeError as error:  # the kernel died: out of memory, as a rule
        what = str(error)
    raise InputError(f"chapter {name} stopped: {what}; the notebook up to there is {executed}")


def run_study(name: str, parameters: dict[str, Any], profile: str = "smoke", out: Path | None = None) -> Path:
    """Execute one chapter, starting from a profile's parameters; returns the executed notebook.

    It lies in `out`, or in `<store>/notebooks/<label>`. Raises InputError for a bad parameter before a kernel starts,
    and for a cell that fails.
    """
    merged = chapter_parameters(name, profile, parameters)
    return execute_chapter(name, merged, out or store_root() / "notebooks" / merged["profile"])


def build_book(
    profile: str,
    chapters: list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
    pdf: bool = False,
) -> BookResult:
    """Execute chapters and build the book of them.

    Parameters
    ----------
    profile : a name in `book/profiles.yml`
    chapters : their names; all when left out. The landing page is always built.
    parameters : they override the profile's in every chapter that has a parameter of that name
    out : folder of the book and its results, new, empty or an older book's; by default in the store, by label
    fresh : execute chapters again that nothing has changed for (`dare_core.chapter_store`)
    pdf : print it too (`dare_core.report.pdf`)

    Raises InputError for an unknown chapter, profile or parameter, for a chapter that fails (those that ended keep
    their results), and for any warning of the build.
    """
    start = time.monotonic()
    if pdf:
        system_chromium()  # refused before hours of work
    if out and out.is_dir() and any(out.iterdir()) and not (out / "source" / "_config.yml").is_file():
        raise InputError(f"{out} holds something that is not a book: choose a new or empty folder")
    order = execution_order(chapters)
    placed = {"results": str(out / "results")} if out else {}  # as typed: the executed notebooks show it
    label, merged = book_parameters(list(order), profile, parameters or {}, placed)
    results = out / "results" if out else results_folder(label)
    out = (out or store_root() / "book" / label).resolve()
    folder = _stage(out, results, list(order), pdf)
    with tqdm(total=len(order), unit="chapter", disable=None) as bar:

        def execute(name: str) -> None:
            _execute(name, merged[name], folder, results, fresh, bar)

        run_in_order({name: after for name, after in order.items() if name not in COLLECTING}, execute)
        write_ledger(results, label)  # the landing page shows it
        run_in_order({name: [] for name in COLLECTING if name in order}, execute)
    shutil.copytree(results, out / "source" / "results")  # where the chapters' links to their data point
    write_stored_tables(list(order), out / "source" / "results" / "stored")
    print("building the pages", flush=True)
    rows = ledger(results, label)
    _without_absent(folder)
    table = claims_table(rows, load_claims(), row_commands(results, rows))
    (out / "source" / "book" / "claims_table.html").write_text(table, "utf-8")
    shutil.rmtree(out / "_build", ignore_errors=True)
    html = _jupyter_book(out)
    write_downloads(rows, html / "book")
    if pdf:
        _print(out, html)
    runs = [content["runs"] for name, content in chapter_results(results).items() if name in order]
    computed, reused = (sum(of[what] for of in runs) for what in ("computed", "reused"))
    print(f"trainings: {computed} computed, {reused} reused; {time.monotonic() - start:.0f} s in all", flush=True)
    return BookResult(html / "index.html", results / "ledger.json", html / PDF if pdf else None)


def _stage(out: Path, results: Path, names: list[str], pdf: bool) -> Path:
    """Lay out `source/` for these chapters and remove their older results; returns the folder of their notebooks."""
    source = out / "source"
    mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
    if mathjax is None or mathjax.origin is None:
        raise InputError("the package sphinx-mathjax-offline is not installed: run `make env`")
    results.mkdir(parents=True, exist_ok=True)
    for old in (path for name in names for path in results_of(name, results)):
        old.unlink(missing_ok=True)
    shutil.rmtree(source, ignore_errors=True)
    (source / "notebooks").mkdir(parents=True)
    shutil.copy(project_root() / "_config.yml", source)
    static = shutil.copytree(project_root() / "book" / "_static", source / "book" / "_static")
    (static / "mathjax").mkdir()
    shutil.copy(Path(mathjax.origin).parent / "static" / "mathjax" / MATHJAX, static / "mathjax")
    toc = read_plan("_toc.yml")
    for path in (project_root() / "book").glob("*"):  # pages, and the drawing that they and chapters show
        if path.suffix in (".md", ".svg"):
            shutil.copy(path, source / "book")
    toc["chapters"] = [of for of in toc["chapters"] if is_page(of["file"]) or Path(of["file"]).name in names]
    printed = f'<p>The whole book as <a href="../{PDF}">one PDF file</a>.</p>' if pdf else ""
    (source / "book" / "printed.html").write_text(printed, "utf-8")
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")
    return source / "notebooks"


def _execute(name: str, parameters: dict[str, Any], folder: Path, results: Path, fresh: bool, bar: tqdm) -> None:
    """Execute a chapter, or take its last execution."""
    start = time.monotonic()
    source = notebook_of(name)
    key = chapter_key(source, parameters)
    known = name not in COLLECTING and not fresh and recall(name, key, folder / source.name, results)
    if not known:
        executed = execute_chapter(name, parameters, folder)
        _lay_out(executed)
        if name not in COLLECTING:
            remember(name, key, executed, results)
    bar.update()
    if bar.disable:
        done = "unchanged, taken from its last execution" if known else "executed"
        print(f"chapter {name}: {done} in {time.monotonic() - start:.0f} s", flush=True)


def _lay_out(path: Path) -> None:
    """Make a page of an executed notebook: cells with the tag `top` (a chapter's answer and main figure) follow its
    opening words, and the cell of parameters that papermill adds is shown as the notebook's own is."""
    notebook = nbformat.read(path, as_version=4)
    own: list[str] = []
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            own = [tag for tag in tags if tag != "parameters"]
        elif "injected-parameters" in tags:
            cell.metadata["tags"] = [*tags, *own]
    first, *others = notebook.cells
    others.sort(key=lambda cell: "top" not in cell.metadata.get("tags", []))  # stable
    notebook.cells = [first, *others]
    nbformat.write(notebook, path)


def _print(out: Path, html: Path) -> None:
    """Print the pages to one file beside them."""
    print("printing the pages", flush=True)
    single = _jupyter_book(out, "singlehtml")
    # it lies where the first chapter would, but looks for its style sheets as if it lay at the top
    page = (single / read_plan("_toc.yml")["root"]).with_suffix(".html").rename(single / "index.html")
    print_pages(page, html / PDF)


def _without_absent(folder: Path) -> None:
    """Turn links to chapters that are not built this time into plain emphasis."""
    present = {path.name for path in folder.glob("*.ipynb")}

    def plain(link: re.Match[str]) -> str:
        return link[0] if link[2] in present else f"*{link[1]}*"

    for path in folder.glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = re.sub(r"\[([^]]+)\]\((\w+\.ipynb)\)", plain, cell.source)
        nbformat.write(notebook, path)


def _jupyter_book(out: Path, builder: str = "html") -> Path:
    """Build the pages anew, warnings as errors; the whole log is `build.log`. Returns their folder."""
    folder = out / "_build" / builder
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    command += ["--path-output", "..", "--builder", builder, "-W", "-n", "--keep-going"]
    plain = {**os.environ, "NO_COLOR": "1"}
    built = subprocess.run(command, cwd=out / "source", env=plain, capture_output=True, text=True)
    log = out / "build.log"
    log.write_text(built.stdout + built.stderr, "utf-8")
    if built.returncode:
        lines = built.stderr.strip().splitlines() or ["no message"]
        first = next((line for line in lines if re.search(r"(WARNING|ERROR|Error):", line)), lines[0])
        raise InputError(f"the pages were not built: {first.strip()}; the whole log is {log}")
    return folder
