"""The hash of code in the keys of runs: which modules, and what in them."""

from pathlib import Path

import pytest

from dare_core import code_hash as module
from dare_core import language_runs, runs
from dare_core.code_hash import code_hash, modules_behind, tree_hash

SOURCE = '''"""A module."""
import numpy as np

LEAST = 3
"""The least."""


def least(x: int) -> int:
    """The least of two."""
    return min(x, LEAST)  # the smaller one
'''


def test_the_modules_that_compute_a_run_and_no_others() -> None:
    found = {name.removeprefix("dare_core.") for name in modules_behind(runs.CODE)}
    assert {"training", "samples", "config", "click_model", "row_adam", "metrics", "learned_score", "prelu"} <= found
    assert not found & {"schedule", "files", "errors", "devices", "runs", "data.logs", "claims", "cli"}
    language = {name.removeprefix("dare_core.") for name in modules_behind(language_runs.CODE, language_runs.COVERED)}
    assert language == {"language", "language_training"}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("# the smaller one", "# another comment"),
        ("The least of two.", "Another docstring."),
        ('"""The least."""', ""),
        ("A module.", "One."),
        ("import numpy as np", "import numpy as np\nfrom dare_core.elsewhere import something"),
        ("    return min(x, LEAST)", "\n    return min(\n        x,\n        LEAST,\n    )"),
    ],
)
def test_what_computes_nothing_leaves_the_hash(before: str, after: str) -> None:
    assert before in SOURCE and tree_hash(SOURCE.replace(before, after)) == tree_hash(SOURCE)


@pytest.mark.parametrize(("before", "after"), [("3", "4"), ("min(", "max("), ("LEAST", "MOST"), ("x: int", "y: int")])
def test_what_computes_changes_the_hash(before: str, after: str) -> None:
    assert before in SOURCE and tree_hash(SOURCE.replace(before, after)) != tree_hash(SOURCE)


def test_modules_may_move_but_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package made by hand: its hash does not follow the places of its modules, and follows their content."""

    def source(name: str) -> Path | None:
        return next(tmp_path.glob(f"{name.rpartition('.')[2]}.py"), None)

    monkeypatch.setattr(module, "_source", source)

    def hashed(start: str, **sources: str) -> str:
        for path in tmp_path.iterdir():
            path.unlink()
        for name, source in sources.items():
            (tmp_path / f"{name}.py").write_text(source, "utf-8")
        code_hash.cache_clear()
        return code_hash((f"dare_core.{start}",))

    first = hashed("a", a="from dare_core import b\n", b="X = 1\n", c="Y = 1\n")
    assert hashed("z", z="from .sub.d import X\n", d="X = 1\n", c="Y = 2\n") == first
    assert hashed("a", a="def late():\n    import dare_core.b\n", b="X = 1\n") != first
    assert hashed("a", a="from dare_core import b\n", b="X = 2\n") != first
    assert hashed("a", a="from dare_core import b, data\n", b="X = 1\n", data="Z = 1\n") == first
    code_hash.cache_clear()
