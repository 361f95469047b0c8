"""Executed chapters by content hash: a chapter that nothing has changed for is not executed again.

What a chapter shows follows from its notebook, its parameters, the package's code, the files of `book/`, the locked
versions, and the logs and files that its parameters name. Layout: `chapters/<chapter>/<key>/` holds the executed
notebook and the chapter's results.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dare_core.data.logs import COMPLETE_JOURNEY, available, load
from dare_core.files import (
    atomic_folder,
    canonical_json,
    locked,
    project_root,
    remove_folder,
    sha256_of,
    short_hash,
    store_root,
    write_json,
)

KEPT = 4
"""Executions kept of a chapter: of several profiles or logs."""


def code_hash() -> str:
    """Hash of all that chapters have in common: code, claims, profiles, stored results, locked versions."""
    root = project_root()
    patterns = ("dare_core/**/*.py", "dare_core/**/*.json", "book/*.yml", "book/stored/**/*.json")
    found = [path for pattern in patterns for path in root.glob(pattern)]
    digest = hashlib.sha256()
    for path in [*sorted(found), root / "requirements.lock"]:
        digest.update(f"{path.relative_to(root)} {sha256_of(path)}\n".encode())
    return digest.hexdigest()


def inputs(parameters: Mapping[str, Any]) -> dict[str, str]:
    """Content hashes of the logs and files that parameters name; generated worlds follow from the code."""
    files = {name: Path(str(parameters[name])).expanduser() for name in ("path", "text") if parameters.get(name)}
    found = {name: sha256_of(path) for name, path in files.items() if path.is_file()}
    if "path" not in parameters:  # otherwise the chapter makes its log itself
        names = str(parameters.get("logs", "")).split(",")
        if COMPLETE_JOURNEY in names:
            load(COMPLETE_JOURNEY)  # prepared when it is first asked for
        cards = {card.name: card.fingerprint for card in available()}
        found |= {name: cards[name] for name in names if name in cards}
    return found


def chapter_key(notebook: Path, parameters: Mapping[str, Any]) -> str:
    """Content hash of an execution."""
    return short_hash(canonical_json([code_hash(), sha256_of(notebook), dict(parameters), inputs(parameters)]))


def results_of(name: str, folder: Path) -> list[Path]:
    """A chapter's files in a folder of results: its metrics first."""
    return [folder / f"{name}.json", *sorted(folder.glob(f"{name}_*.csv"))]


def recall(name: str, key: str, executed: Path, results: Path) -> bool:
    """Lay an earlier execution's notebook and results where a new one would have written them.

    Its trainings count as reused. Returns whether there was one.
    """
    place = store_root() / "chapters" / name
    folder = place / key
    try:
        with locked(place):
            metrics = json.loads((folder / f"{name}.json").read_text("utf-8"))
            runs = metrics["runs"]
            metrics["runs"] = {"computed": 0, "reused": runs["computed"] + runs["reused"]}
            shutil.copy(folder / executed.name, executed)
            for path in results_of(name, folder)[1:]:
                shutil.copy(path, results)
    except (OSError, ValueError, KeyError):  # missing or damaged
        return False
    write_json(results / f"{name}.json", metrics)
    return True


def remember(name: str, key: str, executed: Path, results: Path) -> None:
    """Keep an execution, and the last few of the chapter's others."""
    place = store_root() / "chapters" / name
    with locked(place):
        remove_folder(place / key)
        with atomic_folder(place / key) as folder:
            for path in [executed, *results_of(name, results)]:
                shutil.copy(path, folder)
        for old in sorted(place.glob("[0-9a-f]*"), key=lambda path: path.stat().st_mtime)[:-KEPT]:
            remove_folder(old)
