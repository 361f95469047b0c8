"""The hash of code in the keys of runs: which modules, and what in them."""

from pathlib import Path

import pytest

import dare_core
from dare_core.language import runs as language_runs
from dare_core.training import code_hash as module
from dare_core.training import runs
from dare_core.training.code_hash import code_hash, modules_behind, statements

FOLDER = Path(dare_core.__file__).parent
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
    assert {"training.loop", "data.samples", "config", "models.click_model", "training.row_adam"} <= found
    assert {"evaluation.metrics", "models.kernels.fused", "models.kernels.lookup"} <= found
    left_out = {"schedule", "files", "errors", "training.devices", "training.runs", "training.store", "data.logs"}
    left_out |= {"report.claims", "cli"}
    assert not found & left_out and all((FOLDER / f"{name.replace('.', '/')}.py").is_file() for name in left_out)
    language = {name.removeprefix("dare_core.") for name in modules_behind(language_runs.CODE, language_runs.COVERED)}
    assert language == {"language.gpt", "language.training"}


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
    assert before in SOURCE and statements(SOURCE.replace(before, after)) == statements(SOURCE)


@pytest.mark.parametrize(("before", "after"), [("3", "4"), ("min(", "max("), ("LEAST", "MOST"), ("x: int", "y: int")])
def test_what_computes_changes_the_hash(before: str, after: str) -> None:
    assert before in SOURCE and statements(SOURCE.replace(before, after)) != statements(SOURCE)


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
    two = hashed("a", a="from dare_core import b\nX = 1\n", b="Y = 1\n\n\ndef f():\n    return Y\n")
    assert hashed("a", a="from .room.b import f\n\n\ndef f():\n    return Y\n", b="Y = 1\nX = 1\n") == two  # split anew
    assert hashed("a", a="from dare_core import b\nX = 1\n", b="Y = 1\n\n\ndef f():\n    return X\n") != two
    assert hashed("z", z="from .sub.d import X\n", d="X = 1\n", c="Y = 2\n") == first
    assert hashed("a", a="def late():\n    import dare_core.b\n", b="X = 1\n") != first
    assert hashed("a", a="from dare_core import b\n", b="X = 2\n") != first
    assert hashed("a", a="from dare_core import b, logs\n", b="X = 1\n", logs="Z = 1\n") == first
    code_hash.cache_clear()
