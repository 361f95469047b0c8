"""Who runs beside whom: order, failures, cores, and measurements left alone."""

import os
import threading
import time
from pathlib import Path

import pytest

from dare_core import schedule
from dare_core.schedule import computing, measuring, run_in_order, shared_cores


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: 2)


def test_two_at_a_time_and_nobody_before_those_it_comes_after() -> None:
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
    with pytest.raises(ValueError, match="a, b"):
        run_in_order({"a": ["b"], "b": ["a"]}, print)


def test_processes_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule.os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    with shared_cores(2):
        assert (os.environ["OMP_NUM_THREADS"], os.environ["NUMBA_NUM_THREADS"]) == ("4", "3")
    assert "OMP_NUM_THREADS" not in os.environ and os.environ["NUMBA_NUM_THREADS"] == "3"


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
