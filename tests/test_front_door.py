"""Help, listings and refusals of parameters answer at once: they import none of the slow packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL_SAMPLES, store_small_log

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.training.runs import RunStore

SLOW = ("torch", "scipy", "sklearn", "numba", "matplotlib", "seaborn", "papermill", "nbformat")
PROGRAM = """
import json, sys
from dare_core.cli import main

sys.argv = ["dare", *sys.argv[1:]]
status = 0
try:
    main()
except SystemExit as stopped:
    status = stopped.code or 0
print(json.dumps({"status": status, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def answer(*arguments: str) -> tuple[str, int, set[str]]:
    """What a command prints, its status, and the slow packages that it imported."""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-c", PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    *lines, last = done.stdout.splitlines()
    found = json.loads(last)
    return "\n".join(lines) + done.stderr, found["status"], {*SLOW}.intersection(found["modules"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The key of a run, and the store that holds it and its log."""
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("DARE_STORE", str(folder))
        store_small_log()
        training = TrainingConfig(batch_size=60, epochs=1)
        config = RunConfig(log="by_hand", samples=SMALL_SAMPLES, model=ModelConfig(size=4), training=training)
        return RunStore(progress=False).get(config).key, folder


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("--help",), 0, "dare data prepare"),
        (("claims",), 0, "not studied yet"),
        (("runs", "list"), 0, "KEY"),
        (("runs", "show", "KEY"), 0, '"best"'),
        (("data", "list"), 0, "by_hand"),
        (("study", "convergence", "-p", "nonsense=1"), 2, "nonsense"),
        (("study", "language", "-p", "sizes=big"), 2, "sizes"),
        (("study", "attention", "--profile", "huge"), 2, "standard"),
        (("train", "--log", "by_hand", "-p", "sise=8"), 2, "'size'"),
        (("book", "--chapters", "nothing"), 2, "nothing"),
        (("sweep", "nowhere.yml"), 2, "nowhere.yml"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_answers_at_once(
    arguments: tuple[str, ...], status: int, says: str, run: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    key, folder = run
    monkeypatch.setenv("DARE_STORE", str(folder))
    said, found, slow = answer(*(argument.replace("KEY", key) for argument in arguments))
    assert (found, slow) == (status, set())
    assert says.replace("KEY", key) in said
