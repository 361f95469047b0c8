"""Who imports whom among the folders of the package: only leftwards; and no folder has too many modules."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import dare_core

PACKAGE = Path(dare_core.__file__).parent
ORDER = (
    ("errors",),
    ("config", "files"),
    ("schedule",),
    ("data",),
    ("models",),
    ("evaluation",),
    ("training",),
    ("report",),
    ("studies",),
    ("chapter_store",),
    ("book",),
    ("cli",),
)
"""From left to right; each may import what lies further left. `language` and `published` are wings of their own."""
RANK = {room: rank for rank, rooms in enumerate(ORDER) for room in rooms}
WINGS = {
    "language": {
        *("errors", "config", "files", "schedule", "evaluation.intervals", "training.runs"),
        *("training.run_files", "training.code_hash"),  # to be merged into training.runs, with the language runs
    },
    "published": {"errors", "config", "files", "schedule", "data", "models", "training"},
}
"""What a wing may import besides itself: rooms or single modules."""
VISITORS = {"studies", "book", "cli"}
"""Rooms that may import the wings."""
MOST_MODULES = 10
MORE_MODULES = {"studies": 28}  # to be merged: one short module a finding


def modules() -> dict[str, Path]:
    """Files by module name without the package's: `models.kernels.fused`; a folder's `__init__` by the folder's."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(name: str, source: str, path: Path) -> set[str]:
    """Modules of the package that a module imports, at its top or within functions."""
    base = f"{PACKAGE.name}.{name}".rstrip(".").split(".")
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = base[: len(base) - node.level + (path.name == "__init__.py")] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            names = {alias.name: f"{start}.{alias.name}" for alias in node.names}
            found.update(
                full if full.partition(".")[2] in MODULES else start  # a module, or something in one
                for full in names.values()
            )
    return {module.partition(".")[2] for module in found if module.partition(".")[0] == PACKAGE.name}


def room(module: str) -> str:
    """The folder right in the package, or the module there; nothing for the package itself."""
    return module.partition(".")[0]


def allowed(importer: str, target: str) -> bool:
    """Whether a module may import another."""
    here, there = room(importer), room(target)
    if here == there or not here or not there:  # the package's own names come from every room
        return True
    if here in WINGS:
        return target in WINGS[here] or there in WINGS[here]
    if there in WINGS:
        return here in VISITORS
    return RANK[there] < RANK[here]


def graph(imports: dict[str, set[str]]) -> str:
    """Which room imports which, a line each."""
    rooms: dict[str, set[str]] = defaultdict(set)
    for importer, targets in imports.items():
        rooms[room(importer)] |= {room(target) for target in targets} - {room(importer), ""}
    return "\n".join(
        f"{name or PACKAGE.name} -> {', '.join(sorted(rooms[name])) or 'nothing'}" for name in sorted(rooms)
    )


def test_imports_point_leftwards() -> None:
    imports = {name: imported(name, path.read_text("utf-8"), path) for name, path in MODULES.items()}
    unplaced = {room(name) for name in MODULES} - {"", *RANK, *WINGS}
    assert not unplaced, f"no place in the order: {', '.join(sorted(unplaced))}"
    wrong = [f"{a} imports {b}" for a, targets in imports.items() for b in sorted(targets) if not allowed(a, b)]
    assert not wrong, "\n".join([*sorted(wrong), "", "The rooms as they are:", graph(imports)])


def test_within_a_folder_there_is_no_circle() -> None:
    imports = {name: imported(name, path.read_text("utf-8"), path) - {name} for name, path in MODULES.items()}
    left = {name: targets & set(imports) for name, targets in imports.items()}
    while free := [name for name, targets in left.items() if not targets & set(left)]:
        for name in free:
            del left[name]
    assert not left, "\n".join(f"{name} -> {', '.join(sorted(targets & set(left)))}" for name, targets in left.items())


def test_folders_stay_small() -> None:
    folders = {path.parent for path in MODULES.values()} - {PACKAGE}
    for folder in folders:
        name = ".".join(folder.relative_to(PACKAGE).parts)
        assert (folder / "__init__.py").is_file(), f"{name} would not be installed"
        found = sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
        assert len(found) <= MORE_MODULES.get(name, MOST_MODULES), f"{name}: {len(found)} modules, {', '.join(found)}"


@pytest.mark.parametrize(
    ("importer", "source", "right"),
    [
        ("models.search", "from dare_core.data.samples import Batch", True),
        ("models.search", "from dare_core.training import loop", False),
        ("models.search", "def late():\n    from ..training.loop import train", False),
        ("data.samples", "import dare_core.models.zoo", False),
        ("evaluation.metrics", "from . import intervals", True),
        ("language.gpt", "from dare_core.evaluation.intervals import interval", True),
        ("language.gpt", "from dare_core.evaluation import metrics", False),
        ("training.loop", "from dare_core.published import model", False),
        ("studies.language", "from dare_core.language.gpt import KINDS", True),
        ("report.record", "from dare_core.studies.common import StudyConfig", False),
    ],
)
def test_a_wrong_import_is_seen(importer: str, source: str, right: bool) -> None:
    targets = imported(importer, source, MODULES[importer])
    assert targets and all(allowed(importer, target) for target in targets) is right
