"""A hash of the code that computes a result: results of other code get other keys."""

import ast
import hashlib
from collections import deque
from functools import cache
from importlib.util import find_spec
from pathlib import Path

PACKAGE = __name__.partition(".")[0]
EXCLUDED = frozenset({"errors", "files", "logs", "devices", "schedule", "store"})
"""Modules with one of these in their name are left out: what they do shows in a log's fingerprint, in the rest of a
run's key, or not at all in a result."""


def _source(module: str) -> Path | None:
    """The file of a module of this package; None where there is no such module."""
    spec = find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin).parent.joinpath(*module.split(".")[1:])
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def _imported(module: str, path: Path) -> set[str]:
    """Modules of this package that a module imports, at its top or within its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            level = node.level - (path.name == "__init__.py")  # a package's relative names start at itself
            parent = ".".join(module.split(".")[: -level or None]) if node.level else ""
            base = ".".join(part for part in (parent, node.module) if part)
            for alias in node.names:
                name = f"{base}.{alias.name}"
                within = base.partition(".")[0] == PACKAGE
                found.add(name if within and _source(name) else base)
    return {name for name in found if name.partition(".")[0] == PACKAGE}


def modules_behind(names: tuple[str, ...], excluded: frozenset[str] = EXCLUDED) -> dict[str, Path]:
    """Files by module: some modules of this package and all that they import from it, directly or not."""
    found: dict[str, Path] = {}
    waiting = deque(names)
    while waiting:
        name = waiting.popleft()
        path = _source(name)
        if name in found or path is None or excluded.intersection(name.split(".")):
            continue
        found[name] = path
        waiting.extend(_imported(name, path))
    return found


class _Meaning(ast.NodeTransformer):
    """Removes what computes nothing: docstrings, and imports, which only name where modules are."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST | None:
        """Docstrings, those of constants too."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node

    def visit_Import(self, node: ast.Import) -> None:
        """Imports."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        """Imports."""


def statements(source: str) -> list[str]:
    """The syntax trees of a module's top-level statements, without comments, docstrings, layout and imports."""
    return [ast.dump(node) for node in _Meaning().visit(ast.parse(source)).body]


@cache
def code_hash(names: tuple[str, ...], excluded: frozenset[str] = EXCLUDED) -> str:
    """First 16 digits of a hash of some modules and all that they import (`modules_behind`).

    The top-level statements of all these modules are sorted and hashed together. A module's name and folder, the
    order of definitions, and which module holds which of them do not count: a pure move keeps every run.
    """
    sources = (path.read_text("utf-8") for path in modules_behind(names, excluded).values())
    found = sorted(statement for source in sources for statement in statements(source))
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:16]
