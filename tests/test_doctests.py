"""The examples in docstrings of the public API run and give what they say."""

import subprocess
import sys
from pathlib import Path

import dare_core

PACKAGE = Path(dare_core.__file__).parent
DOCUMENTED = ("__init__.py", "models/click_model.py", "models/interface.py", "models/serving.py")


def test_examples_run() -> None:
    files = [str(PACKAGE / name) for name in DOCUMENTED]
    command = [sys.executable, "-m", "pytest", "--doctest-modules", "-q", "-p", "no:cacheprovider", *files]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=PACKAGE.parent)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    for name in ("dare_core", "DARE", "TWIN", "to_serving"):
        assert any(name in example for example in examples()), name


def examples() -> set[str]:
    """Names of the documented objects that have an example."""
    import doctest
    from importlib import import_module

    found = set()
    for name in DOCUMENTED:
        module = import_module(".".join(["dare_core", *Path(name).with_suffix("").parts]).removesuffix(".__init__"))
        found |= {test.name for test in doctest.DocTestFinder().find(module) if test.examples}
    return found
