"""Kill commands at random moments, and see that the same command then ends with the same numbers.

.venv/bin/python tests/kills.py 100

Each command is timed once in a store of its own, which gives the numbers that are expected. Then, in another store, it
is started and killed (`kill -9`) so many times, each at a moment drawn from its duration, and at last left to end.
`tests/test_kills.py` is the short form.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DARE = [sys.executable, "-m", "dare_core.cli"]
SMALL = ["-p", "history=20", "-p", "targets=12", "-p", "size=4", "-p", "seeds=2"]


def write_log(path: Path, users: int = 300, clicks: int = 60) -> None:
    """A log in which users stay in a category for a while."""
    draw, lines = np.random.default_rng(0), ["who,what,kind"]
    for user in range(users):
        kind = draw.integers(20)
        for _ in range(clicks):
            kind = draw.integers(20) if draw.random() < 0.2 else kind
            lines.append(f"u{user},p{20 * draw.integers(60) + kind},k{kind}")
    path.write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Command:
    """A command, and how to read the numbers that it leaves."""

    words: list[str]
    numbers: Callable[[str, Path], Any]  # of its output and its store
    status: tuple[int, ...] = (0,)


def lines_with(*starts: str) -> Callable[[str, Path], Any]:
    """The lines of an output that begin so."""
    return lambda said, store: [line for line in said.splitlines() if line.startswith(starts)]


def report(said: str, store: Path) -> Any:
    """What a report says, but for measured times."""
    content = json.loads(next(store.glob("diagnose/*/report.json")).read_text("utf-8"))
    return {name: content[name] for name in ("answer", "headline", "facts", "scores", "log")}


def ledger(said: str, store: Path) -> Any:
    """The ledger of a book."""
    return json.loads(next(store.glob("book/*/results/ledger.json")).read_text("utf-8"))


def commands(log: Path) -> dict[str, Command]:
    """What is killed."""
    columns = ["--user", "who", "--item", "what", "--category", "kind"]
    samples = ["-p", "history=20", "-p", "targets=6", "-p", "shortest_user=30", "-p", "size=4"]
    world = [
        "-p",
        "world_users=40",
        "-p",
        "size=4",
        "-p",
        "seeds=2",
        "-p",
        "history=50",
        "-p",
        "shortest_user=60",
        "-p",
        "targets=4",
    ]
    return {
        "prepare": Command(
            [*["data", "prepare", "table"], str(log), *columns, "--name", "killed"], lines_with("finger")
        ),
        "train": Command(["train", "--log", "complete", "--model", "DARE", *samples], lines_with("validation", "test")),
        "diagnose": Command(["diagnose", str(log), *columns, *SMALL], report, (0, 3)),
        "book": Command([*["book", "--profile", "smoke", "--chapters", "convergence"], *world], ledger),
    }


def start(command: Command, store: Path) -> subprocess.Popen:
    """Start a command in a process group of its own."""
    environment = os.environ | {"DARE_STORE": str(store), "DARE_WORKERS": "1", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*DARE, *command.words], env=environment, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(command: Command, store: Path) -> Any:
    """Let a command end; its numbers. Raises RuntimeError where it fails."""
    process = start(command, store)
    said, wrong = process.communicate()
    if process.returncode not in command.status:
        raise RuntimeError(f"exit status {process.returncode}: {wrong[-2000:]}")
    return command.numbers(said, store)


def kill(command: Command, store: Path, after: float) -> bool:
    """Start a command and kill it with its children after so many seconds; whether it was still running."""
    process = start(command, store)
    try:
        process.communicate(timeout=after)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return True


def try_command(name: str, kills: int, seed: int = 0) -> str:
    """Kill a command several times, then compare its numbers with those of one that nobody killed."""
    moments = random.Random(f"{name} {seed}")
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log.csv"
        write_log(log)
        command, undisturbed, store = commands(log)[name], Path(scratch) / "undisturbed", Path(scratch) / "killed"
        if name == "train":
            for place in (undisturbed, store):
                prepared = commands(log)["prepare"]
                finish(Command([*prepared.words[:-1], "complete"], prepared.numbers), place)
        started = time.monotonic()
        expected = finish(command, undisturbed)
        duration = time.monotonic() - started
        killed = sum(kill(command, store, moments.uniform(0, duration)) for _ in range(kills))
        found = finish(command, store)
        left = [path for path in store.rglob(".writing-*") if path.is_file()]
        shutil.rmtree(store)
    if found != expected or not expected:
        raise RuntimeError(f"{name}: after {killed} kills {found}, undisturbed {expected}")
    return (
        f"{name}: killed {killed} of {kills} times in {duration:.0f} s; the same numbers; {len(left)} files left over"
    )


if __name__ == "__main__":
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 100
    for each in commands(Path("log.csv")):
        print(try_command(each, total // 4), flush=True)
