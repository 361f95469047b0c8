"""Work in several processes: who may run side by side, with how many cores, and what must be left alone.

A training uses little more than one core, so that two side by side are nearly twice as fast as one with two.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager

import torch
from filelock import ReadWriteLock

from dare_core.files import store_root

MOST = 4
"""Pieces of work side by side at most: each has its own log and samples in memory."""


def side_by_side() -> int:
    """Pieces of work that this machine's cores allow at a time."""
    return min(MOST, os.cpu_count() or 1)


def run_in_order(after: Mapping[str, Sequence[str]], work: Callable[[str], None]) -> None:
    """Do the work of every name, several at a time.

    Whoever stands first and waits for nobody is next: `after` gives for each name those that must have ended (names
    that it lacks count as ended). After a failure nothing new starts; it is raised when the others have ended.
    """
    waiting, running, failure = list(after), dict[Future[None], str](), None
    workers = min(side_by_side(), max(1, len(waiting)))
    with shared_cores(workers), ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            unfinished = {*waiting, *running.values()}
            ready = [name for name in waiting if not unfinished.intersection(after[name])]
            if not ready and not running:
                raise ValueError(f"these wait for one another: {', '.join(waiting)}")
            for name in ready[: workers - len(running)]:
                waiting.remove(name)
                running[pool.submit(work, name)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                del running[future]
                if error := future.exception():
                    failure, waiting = failure or error, []
    if failure is not None:
        raise failure


@contextmanager
def shared_cores(processes: int) -> Iterator[None]:
    """Let processes that start within use their share of the cores, where the caller's environment does not say more.

    Threads of several processes on the same core wait for one another, at every step of a training.
    """
    share = str(max(1, (os.cpu_count() or 1) // processes))
    ours = {name: share for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread of torch within, for many small operations: several would wait for one another at each (measured
    beside other work on two cores, a small training took fifty times the processor time). Sums do not depend on how
    many there are."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _lock() -> ReadWriteLock:
    store_root().mkdir(parents=True, exist_ok=True)
    return ReadWriteLock(store_root() / "computing.lock", is_singleton=False)


@contextmanager
def computing() -> Iterator[None]:
    """A training: many at a time, but none while a process of the same store measures time."""
    with _lock().read_lock():
        yield


@contextmanager
def measuring() -> Iterator[None]:
    """A measurement of time: alone, as far as trainings of the same store are concerned."""
    with _lock().write_lock():
        yield
