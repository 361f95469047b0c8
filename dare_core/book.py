"""From notebooks to a book: execute the chapters with papermill, build them with Jupyter Book.

A book lies in one folder (`<store>/book/<label>` unless told otherwise): `source/` what it is built from,
executed notebooks included; `_build/html/` the pages, which fetch nothing from the network. The chapters'
metrics and `ledger.json` lie in the label's results folder. A label is a profile's name, with a hash of the
parameters that are not the profile's, where there are any.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import nbformat
import papermill
import yaml
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError
from tqdm import tqdm

from dare_core.chapter_store import COLLECTING, chapter_key, recall, remember
from dare_core.errors import InputError
from dare_core.files import project_root, store_root
from dare_core.report.claims import results_folder, write_ledger
from dare_core.report.record import LABELS, ChapterConfig, label_of
from dare_core.report.stored import write_stored_tables
from dare_core.schedule import run_in_order
from dare_core.studies import STUDIES

LANDING = "landing"
MATHJAX = "tex-svg-full.js"  # named in _config.yml too


@dataclass(frozen=True)
class BookResult:
    """A finished book: first page, ledger, runs computed and reused, the build's warnings, seconds in all."""

    index_html: Path
    ledger: Path
    computed: int
    reused: int
    warnings: list[str]
    seconds: float


def read_plan(name: str) -> dict[str, Any]:
    """A YAML file of `book/`: `_toc.yml` (reading order) or `profiles.yml` (parameters, execution order)."""
    path = project_root() / "book" / name
    if not path.is_file():
        raise InputError(f"{path} is missing: the book is built in a clone of the project")
    return yaml.safe_load(path.read_text("utf-8"))


def chapter_names() -> list[str]:
    """Every chapter of the book by its study's name, in reading order, the landing page first."""
    toc = read_plan("_toc.yml")
    files = [toc["root"], *(chapter["file"] for chapter in toc["chapters"])]
    return [Path(file).name for file in files if not is_page(file)]


def is_page(file: str) -> bool:
    """Whether an entry of `_toc.yml` is a page of text in `book/`, which every book has and nothing executes."""
    return file.startswith("book/")


def notebook_of(name: str) -> Path:
    """Source notebook of a chapter, `notebooks/NAME.ipynb`. Raises InputError for an unknown chapter."""
    if name not in chapter_names():
        raise InputError(f"there is no chapter {name!r}: choose from {', '.join(chapter_names())}")
    return project_root() / "notebooks" / f"{name}.ipynb"


def chapter_parameters(name: str, profile: str, parameters: dict[str, Any], label: str = "") -> dict[str, Any]:
    """One chapter's parameters: the profile's shared ones, its own, then `parameters`; later ones win.

    Shared ones go only where they are known. `profile` becomes the label of the results: `label` or, where parameters
    go beyond the profile's, one of their own. Raises InputError for an unknown profile, and for a parameter that the
    chapter does not have or whose type or range is wrong.
    """
    notebook_of(name)
    merged = {**_profile_parameters(name, profile), **parameters, "profile": profile}
    checked = STUDIES[name].Config.checked(merged)
    label = label or label_of(profile, _beyond(name, profile, checked))
    return {key: getattr(checked, key) for key in merged} | {"profile": label}


def _profile_parameters(name: str, profile: str) -> dict[str, Any]:
    """A profile's parameters of a chapter."""
    profiles = read_plan("profiles.yml")["profiles"]
    if profile not in profiles:
        raise InputError(f"there is no profile {profile!r}: choose from {', '.join(profiles)}")
    fields = STUDIES[name].Config.model_fields
    shared = {key: value for key, value in profiles[profile]["all"].items() if key in fields}
    return {**shared, **profiles[profile]["chapters"].get(name, {})}


def _beyond(name: str, profile: str, checked: ChapterConfig) -> dict[str, Any]:
    """Parameters of a chapter whose values are not the profile's, results' place and label left out."""
    plain = STUDIES[name].Config.checked(_profile_parameters(name, profile)).model_dump(mode="json", exclude={*LABELS})
    given = checked.model_dump(mode="json", exclude={*LABELS})
    return {key: value for key, value in given.items() if value != plain[key]}


def run_study(name: str, parameters: dict[str, Any], profile: str = "smoke", out: Path | None = None) -> Path:
    """Execute one chapter, starting from a profile's parameters; returns the executed notebook.

    It lies in `out`, or in `<store>/notebooks/<label>`: the profile's name, with a hash of the parameters beyond it.
    Raises InputError for a bad parameter before a kernel starts, and for a cell that fails.
    """
    merged = chapter_parameters(name, profile, parameters)
    return execute_chapter(name, merged, out or store_root() / "notebooks" / merged["profile"])


def book_parameters(
    names: list[str], profile: str, parameters: dict[str, Any], placed: dict[str, Any]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Label of a book, and each chapter's parameters: `parameters` go to those that have one of that name."""
    given: dict[str, dict[str, Any]] = {}
    beyond: dict[str, Any] = {}
    for name in names:
        config = STUDIES[name].Config
        given[name] = {key: value for key, value in parameters.items() if key in config.model_fields}
        beyond |= _beyond(name, profile, config.checked(_profile_parameters(name, profile) | given[name]))
    label = label_of(profile, beyond)
    return label, {name: chapter_parameters(name, profile, {**given[name], **placed}, label) for name in names}


def labels() -> list[str]:
    """Labels of the results in the store."""
    return sorted(path.parent.name for path in (store_root() / "book").glob("*/results"))


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


def build_book(
    profile: str,
    chapters: list[str] | None = None,
    parameters: dict[str, Any] | None = None,
    out: Path | None = None,
    fresh: bool = False,
) -> BookResult:
    """Execute the chapters (all, or `chapters` and the landing page) and build the book of them.

    A chapter that nothing has changed for is taken from its last execution (`chapter_store`), unless `fresh`.

    `parameters` overrides the profile's in every chapter that has a parameter of that name. Without `out`
    the book lies in `<store>/book/<label>` and its results where `dare claims` reads the label's, which is the
    profile's name, with a hash of the parameters beyond it; with `out`, both lie there: a new or empty folder, or an
    older book's. Raises InputError for an unknown chapter, profile or parameter, for a chapter that fails (those that
    ended keep their results), for any warning of the build, and for a page that would fetch anything from the network.
    """
    start = time.monotonic()
    if out and out.is_dir() and any(out.iterdir()) and not (out / "source" / "_config.yml").is_file():
        raise InputError(f"{out} holds something that is not a book: choose a new or empty folder")
    order = _order(chapters)
    names = list(order)
    _check_known(names, parameters or {})
    placed = {"results": str(out / "results")} if out else {}  # as typed: the executed notebooks show it
    label, merged = book_parameters(names, profile, parameters or {}, placed)
    results = out / "results" if out else results_folder(label)
    out = (out or store_root() / "book" / label).resolve()
    _stage(out, results, names)
    folder = out / "source" / "notebooks"
    folder.mkdir()
    with tqdm(total=len(names), unit="chapter", disable=None) as bar:

        def execute(name: str) -> None:
            _execute(name, merged[name], folder, results, fresh, bar)

        run_in_order({name: after for name, after in order.items() if name not in COLLECTING}, execute)
        write_ledger(results, label)  # the landing page shows it
        run_in_order({name: [] for name in COLLECTING if name in order}, execute)
    shutil.copytree(results, out / "source" / "results")  # where the chapters' links to their data point
    write_stored_tables(names, out / "source" / "results" / "stored")
    print("building the pages", flush=True)
    warnings = _jupyter_book(out)
    html = out / "_build" / "html"
    if outside := external_resources(html):
        raise InputError(f"the book would load {len(outside)} parts from the network, first {outside[0]}")
    runs = [_runs(results / f"{name}.json") for name in names]
    computed, reused = (sum(counts) for counts in zip(*runs, strict=True))
    seconds = time.monotonic() - start
    print(f"trainings: {computed} computed, {reused} reused; {seconds:.0f} s in all", flush=True)
    return BookResult(html / "index.html", results / "ledger.json", computed, reused, warnings, seconds)


_LOADING = re.compile(r"<(?:script|link|img|image|iframe|source|video|audio|embed|object|use)\b[^>]*>", re.I)
_FOLLOWED = re.compile(r"\brel=[\"']?(?:canonical|next|prev|search|author)\b", re.I)
_ADDRESS = re.compile(r"\b(?:src|srcset|href|data|poster)\s*=\s*[\"']?\s*((?:https?:)?//[^\"'\s>]+)", re.I)
_CSS_ADDRESS = re.compile(r"(?:url\(|@import)\s*[\"']?((?:https?:)?//[^\"')\s;]+)", re.I)


def external_resources(html_dir: Path) -> list[str]:
    """What the pages in a folder would load from the network, as `file: address`; empty if all is shipped.

    Looks at scripts, style sheets, fonts, images, frames and media, not at links for a reader to follow.
    """
    found = []
    for file in sorted(path for path in html_dir.rglob("*") if path.suffix in (".html", ".css")):
        text = file.read_text("utf-8")
        addresses = _CSS_ADDRESS.findall(text)
        if file.suffix == ".html":
            tags = (tag for tag in _LOADING.findall(text) if not _FOLLOWED.search(tag))
            addresses += [address for tag in tags for address in _ADDRESS.findall(tag)]
        found += [f"{file.relative_to(html_dir)}: {address}" for address in addresses]
    return found


def _order(chapters: list[str] | None) -> dict[str, list[str]]:
    """The chosen chapters and the landing page in order of execution, each with those that it comes after."""
    for name in chapters or []:
        notebook_of(name)
    chosen = {*(chapters or chapter_names()), LANDING}
    return {name: after for name, after in read_plan("profiles.yml")["order"].items() if name in chosen}


def _check_known(names: list[str], parameters: dict[str, Any]) -> None:
    """Raise InputError for a parameter that none of the chapters has, or that the book itself sets."""
    fields = {key for name in names for key in STUDIES[name].Config.model_fields}
    known = sorted(fields - {"profile", "results"})
    for key in parameters:
        if key not in known:
            near = get_close_matches(key, known, 1, 0.4) or known
            raise InputError(f"a book has no parameter {key!r}: did you mean {near[0]!r}?")


def _stage(out: Path, results: Path, names: list[str]) -> None:
    """Lay out `source/` for these chapters, still without notebooks; their older results are removed."""
    source = out / "source"
    mathjax = importlib.util.find_spec("sphinx-mathjax-offline")
    if mathjax is None or mathjax.origin is None:
        raise InputError("the package sphinx-mathjax-offline is not installed: run `make env`")
    results.mkdir(parents=True, exist_ok=True)
    for name in names:
        for old in (results / f"{name}.json", *results.glob(f"{name}_*.csv")):
            old.unlink(missing_ok=True)
    shutil.rmtree(source, ignore_errors=True)
    source.mkdir(parents=True)
    shutil.copy(project_root() / "_config.yml", source)
    static = shutil.copytree(project_root() / "book" / "_static", source / "book" / "_static")
    (static / "mathjax").mkdir()
    shutil.copy(Path(mathjax.origin).parent / "static" / "mathjax" / MATHJAX, static / "mathjax")
    toc = read_plan("_toc.yml")
    for path in (project_root() / "book").glob("*"):  # pages, and the drawing that they and chapters show
        if path.suffix in (".md", ".svg"):
            shutil.copy(path, source / "book")
    files = [chapter["file"] for chapter in toc["chapters"]]
    toc["chapters"] = [{"file": file} for file in files if is_page(file) or Path(file).name in names]
    (source / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False), "utf-8")


def _execute(name: str, parameters: dict[str, Any], folder: Path, results: Path, fresh: bool, bar: tqdm) -> None:
    """Execute a chapter, or take its last execution."""
    start = time.monotonic()
    source = notebook_of(name)
    key = chapter_key(source, parameters)
    known = name not in COLLECTING and not fresh and recall(name, key, folder / source.name, results)
    if not known:
        executed = execute_chapter(name, parameters, folder)
        _fold_code(executed)
        if name not in COLLECTING:
            remember(name, key, executed, results)
    bar.update()
    if bar.disable:
        done = "unchanged, taken from its last execution" if known else "executed"
        print(f"chapter {name}: {done} in {time.monotonic() - start:.0f} s", flush=True)


def _fold_code(path: Path) -> None:
    """Fold the cell of parameters that papermill adds; the notebooks say which others are folded."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if "injected-parameters" in (tags := cell.metadata.get("tags", [])):
            cell.metadata["tags"] = [*tags, "hide-input"]
    nbformat.write(notebook, path)


def _jupyter_book(out: Path) -> list[str]:
    """Build the pages anew, warnings as errors; the whole log is `build.log`."""
    shutil.rmtree(out / "_build", ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", "."]
    command += ["--path-output", "..", "-W", "-n", "--keep-going"]
    plain = {**os.environ, "NO_COLOR": "1"}
    built = subprocess.run(command, cwd=out / "source", env=plain, capture_output=True, text=True)
    log = out / "build.log"
    log.write_text(built.stdout + built.stderr, "utf-8")
    warnings = [line for line in built.stderr.splitlines() if re.search(r"(WARNING|ERROR|Error):", line)]
    if built.returncode:
        first = (warnings or built.stderr.strip().splitlines() or ["no message"])[0]
        raise InputError(f"the pages were not built: {first.strip()}; the whole log is {log}")
    return warnings


def _runs(metrics: Path) -> tuple[int, int]:
    """Runs computed and reused by a chapter, as its metrics file says under `runs`."""
    runs = json.loads(metrics.read_text("utf-8")).get("runs", {}) if metrics.is_file() else {}
    return runs.get("computed", 0), runs.get("reused", 0)
