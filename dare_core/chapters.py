"""Chapters of the book and their parameters: reading order, profiles, labels of results.

A label is a profile's name, with a hash of the parameters that are not the profile's, where there are any. Nothing
here needs PyTorch, so that a wrong parameter is refused at once.
"""

import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from dare_core.errors import InputError
from dare_core.files import project_root, store_root
from dare_core.report.claims import load_claims
from dare_core.report.ledger import chapter_results, stored_folders
from dare_core.report.settings import LABELS, ChapterConfig, label_of
from dare_core.report.verdict import LedgerRow
from dare_core.studies.settings import CONFIGS

LANDING = "landing"
COLLECTING = (LANDING, "reproducibility")
"""Chapters that show the results of the others: executed last, and always."""


def read_plan(name: str) -> dict[str, Any]:
    """A YAML file of `book/`: `_toc.yml` (reading order) or `profiles.yml` (parameters, execution order)."""
    path = project_root() / "book" / name
    if not path.is_file():
        raise InputError(f"{path} is missing: the book is built in a clone of the project")
    return yaml.safe_load(path.read_text("utf-8"))


def chapter_names() -> list[str]:
    """Every chapter of the book by its study's name, in reading order, the landing page first."""
    toc = read_plan("_toc.yml")
    files = (toc["root"], *(chapter["file"] for chapter in toc["chapters"]))
    return [Path(file).name for file in files if not is_page(file)]


def is_page(file: str) -> bool:
    """Whether an entry of `_toc.yml` is a page of text in `book/`, which every book has and nothing executes."""
    return file.startswith("book/")


def notebook_of(name: str) -> Path:
    """Source notebook of a chapter, `notebooks/NAME.ipynb`. Raises InputError for an unknown chapter."""
    if name not in chapter_names():
        raise InputError(f"there is no chapter {name!r}: choose from {', '.join(chapter_names())}")
    return project_root() / "notebooks" / f"{name}.ipynb"


def execution_order(chapters: list[str] | None) -> dict[str, list[str]]:
    """The chosen chapters (None: all) and the landing page in order of execution, each with its prerequisites."""
    for name in chapters or []:
        notebook_of(name)
    chosen = {*(chapters or chapter_names()), LANDING}
    return {name: after for name, after in read_plan("profiles.yml")["order"].items() if name in chosen}


def profile_parameters(name: str, profile: str) -> dict[str, Any]:
    """A profile's parameters of a chapter: its own, and the shared ones that the chapter has."""
    profiles = read_plan("profiles.yml")["profiles"]
    if profile not in profiles:
        raise InputError(f"there is no profile {profile!r}: choose from {', '.join(profiles)}")
    fields = CONFIGS[name].model_fields
    shared = {key: value for key, value in profiles[profile]["all"].items() if key in fields}
    return {**shared, **profiles[profile]["chapters"].get(name, {})}


def differing(name: str, profile: str, given: ChapterConfig) -> dict[str, Any]:
    """Parameters of a chapter whose values are not the profile's; label and place of the results do not count."""
    plain = CONFIGS[name].checked(profile_parameters(name, profile)).model_dump(mode="json", exclude={*LABELS})
    values = given.model_dump(mode="json", exclude={*LABELS})
    return {key: value for key, value in values.items() if value != plain[key]}


def chapter_parameters(name: str, profile: str, parameters: dict[str, Any], label: str = "") -> dict[str, Any]:
    """One chapter's parameters: the profile's shared ones, its own, then `parameters`; later ones win.

    `profile` becomes the label of the results: `label` or, where parameters differ from the profile's, one of their
    own. Raises InputError for an unknown profile, and for a parameter that the chapter does not have or whose type or
    range is wrong.
    """
    notebook_of(name)
    merged = {**profile_parameters(name, profile), **parameters, "profile": profile}
    checked = CONFIGS[name].checked(merged)
    label = label or label_of(profile, differing(name, profile, checked))
    return {key: getattr(checked, key) for key in merged} | {"profile": label}


def book_parameters(
    names: list[str], profile: str, parameters: dict[str, Any], placed: dict[str, Any]
) -> tuple[str, dict[str, dict[str, Any]]]:
    """Label of a book, and each chapter's parameters: `parameters` go to those that have one of that name.

    `placed` goes to every chapter. Raises InputError for a parameter that no chapter has, or that the book itself sets.
    """
    fields = {name: CONFIGS[name].model_fields for name in names}
    known = sorted({key for own in fields.values() for key in own} - {*LABELS})
    for key in [key for key in parameters if key not in known]:
        near = get_close_matches(key, known, 1, 0.4) or known
        raise InputError(f"a book has no parameter {key!r}: did you mean {near[0]!r}?")
    given: dict[str, dict[str, Any]] = {}
    beyond: dict[str, Any] = {}
    for name in names:
        given[name] = {key: value for key, value in parameters.items() if key in fields[name]}
        checked = CONFIGS[name].checked(profile_parameters(name, profile) | given[name])
        beyond |= differing(name, profile, checked)
    label = label_of(profile, beyond)
    return label, {name: chapter_parameters(name, profile, {**given[name], **placed}, label) for name in names}


def study_command(name: str, config: Mapping[str, Any]) -> str:
    """The command that computes a chapter again, from the configuration in its metrics file."""
    profile = str(config.get("profile", "full")).partition("+")[0]
    try:
        beyond = differing(name, profile, CONFIGS[name].checked(config))
    except InputError:  # of a profile or parameters that are no more
        profile, beyond = "full", {}
    options = [f"-p {shlex.quote(f'{key}={value}')}" for key, value in beyond.items()]
    return " ".join(["dare study", name, "--profile", profile, *options])


def row_commands(results: Path, rows: list[LedgerRow]) -> list[str]:
    """For each row of a ledger the command that computes it; nothing for what no chapter can."""
    found = {}
    for folder in [*stored_folders(), results]:
        for name, content in chapter_results(folder).items():
            for row in content["rows"]:
                key = tuple(row.get(part) for part in ("claim", "quantity", "log", "profile"))
                found[key] = study_command(name, content["config"])
    plain = {claim.id: f"dare study {claim.chapter} --profile full" for claim in load_claims().values()}
    testable = {claim.id for claim in load_claims().values() if not claim.untestable}
    return [
        found.get((r.claim, r.quantity, r.log, r.profile), plain[r.claim] if r.claim in testable else "") for r in rows
    ]


def labels() -> list[str]:
    """Labels of the results in the store."""
    return sorted(path.parent.name for path in (store_root() / "book").glob("*/results"))
