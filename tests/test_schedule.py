"""Who runs beside whom: order, failures, cores, and measurements left alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numba
import pytest
import torch

from dare_core import schedule
from dare_core.errors import InputError
from dare_core.schedule import (
    MOST,
    computing,
    in_processes,
    measuring,
    run_in_order,
    running_on,
    shared_cores,
    side_by_side,
)


@pytest.fixture(autouse=True)
def no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many processes as cores, where a test does not say otherwise."""
    monkeypatch.delenv("DARE_WORKERS", raising=False)


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: 2)


def test_two_at_a_time_and_none_before_its_prerequisites() -> None:
    log: list[str] = []
    both = threading.Barrier(2, timeout=10)

    def work(name: str) -> None:
        log.append(f"start {name}")
        if name in ("a", "b"):
            both.wait()  # passes only where the two run side by side
        if name == "b":
            while "end c" not in log:  # c takes the place of a
                time.sleep(0.001)
        log.append(f"end {name}")

    run_in_order({"d": ["b"], "a": [], "b": ["absent"], "c": ["a"]}, work)
    assert log.index("end a") < log.index("start c") and log.index("end b") < log.index("start d")
    assert len(log) == 8


def test_after_a_failure_nothing_new_starts_and_what_runs_ends() -> None:
    log: list[str] = []
    failed = threading.Event()

    def work(name: str) -> None:
        if name == "bad":
            failed.set()
            raise KeyError(name)
        assert failed.wait(10)
        time.sleep(0.05)
        log.append(name)

    with pytest.raises(KeyError):
        run_in_order({"long": [], "bad": [], "next": []}, work)
    assert log == ["long"]


def test_a_circle_is_named() -> None:
    with pytest.raises(ValueError, match="cycle.*'a', 'b'"):
        run_in_order({"a": ["b"], "b": ["a"]}, print)


def test_processes_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    monkeypatch.delenv("DARE_WORKERS", raising=False)
    assert side_by_side() == MOST
    with shared_cores(4):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]) == ("2", "3")
        assert side_by_side() == 2, "of eight cores, four processes have two each"
        with shared_cores(2):
            assert side_by_side() == 1
        assert side_by_side() == 2
    assert "OMP_NUM_THREADS" not in os.environ and os.environ["NUMBA_NUM_THREADS"] == "3"
    assert "DARE_WORKERS" not in os.environ
    monkeypatch.setenv("DARE_WORKERS", "6")
    assert side_by_side() == 6
    with shared_cores(2):
        assert side_by_side() == 3
    monkeypatch.setenv("DARE_WORKERS", "many")
    assert side_by_side() == MOST


def test_threads_are_as_before_afterwards() -> None:
    numba.get_num_threads()  # its first call sets OpenMP's threads, and so torch's
    torch.set_num_threads(1)
    before = torch.get_num_threads(), numba.get_num_threads()
    with running_on(2):
        assert torch.get_num_threads() == 2
        with running_on(1):
            assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
        assert torch.get_num_threads() == 2
    assert (torch.get_num_threads(), numba.get_num_threads()) == before


WORK = """
import os, sys, time
from pathlib import Path
from dare_core.schedule import in_processes

def work(path):
    Path(path).write_text(str(os.getpid()))
    time.sleep(600 if "slow" in path else 0)
    return path

if __name__ == "__main__":
    for path in in_processes(work, sys.argv[1:], 2):
        Path("finished").write_text(path)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_interruption_ends_all_processes(tmp_path: Path, how: signal.Signals) -> None:
    """Also where the parent has no time to say so."""
    (tmp_path / "work.py").write_text(WORK, "utf-8")
    path = f"{Path(schedule.__file__).parent.parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    command = [sys.executable, "work.py", "quick", *(f"slow {i}" for i in range(4))]
    parent = subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}, stderr=subprocess.PIPE)
    begun = [tmp_path / name for name in ("finished", "slow 0", "slow 1")]
    wait_until(lambda: all(file.exists() and file.read_text() for file in begun), 120)
    parent.send_signal(how)
    assert parent.wait(30) != 0
    wait_until(lambda: not any(alive(int(file.read_text())) for file in begun[1:]), 30)
    assert begun[0].read_text() == "quick" and not (tmp_path / "slow 2").exists()


def alive(process: int) -> bool:
    """Whether there is such a process that has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_process_that_dies_is_one_sentence() -> None:
    with pytest.raises(InputError, match="DARE_WORKERS=1"):
        list(in_processes(os._exit, [1, 1], 1))


def test_a_measurement_waits_for_trainings_and_trainings_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DARE_STORE", str(tmp_path))
    log: list[str] = []
    inside, waiting = threading.Barrier(3, timeout=10), threading.Event()

    def train() -> None:
        with computing():
            inside.wait()  # passes only where two trainings run side by side
            waiting.wait(10)
            time.sleep(0.2)
            log.append("trained")

    def measure() -> None:
        inside.wait()
        waiting.set()
        with measuring():
            log.append("measures")
            time.sleep(0.2)
            log.append("measured")

    def later() -> None:
        while "measures" not in log:
            time.sleep(0.001)
        with computing():
            log.append("later")

    threads = [threading.Thread(target=work) for work in (train, train, later)]
    for thread in threads:
        thread.start()
    measure()
    for thread in threads:
        thread.join(10)
    assert log == ["trained", "trained", "measures", "measured", "later"]


def test_after_a_failure_in_a_process_nothing_new_starts() -> None:
    started = time.monotonic()
    with pytest.raises(ValueError, match="non-negative"):
        list(in_processes(time.sleep, [-1, *[1] * 60], 1))
    assert time.monotonic() - started < 50
