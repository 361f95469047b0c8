"""Work in several threads and processes: how many run at a time, with how many cores, and what must run alone.

A training uses little more than one core, so that two side by side are nearly twice as fast as one with two.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, as_completed, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from graphlib import TopologicalSorter
from multiprocessing import get_context, parent_process
from typing import TypeVar

from filelock import ReadWriteLock

from dare_core.errors import InputError
from dare_core.files import store_root

T = TypeVar("T")
R = TypeVar("R")
MOST = 4
"""Trainings or chapters at a time at most: each has its own log and samples in memory."""


def _allowed() -> int | None:
    """The number of processes that `DARE_WORKERS` allows; None where it is not set."""
    value = os.environ.get("DARE_WORKERS", "")
    return max(1, int(value)) if value.isdecimal() else None


def side_by_side() -> int:
    """Number of trainings or chapters at a time: `DARE_WORKERS` where it is set, else the cores, `MOST` at most."""
    return _allowed() or min(MOST, os.cpu_count() or 1)


def run_in_order(after: Mapping[str, Sequence[str]], work: Callable[[str], None]) -> None:
    """Call `work` with every name, in several threads.

    The first name whose prerequisites `after[name]` have finished is next; prerequisites that are no names themselves
    count as finished. After a failure nothing new starts; it is raised when the others have ended. Raises
    `graphlib.CycleError` (a ValueError) where names wait for one another.
    """
    sorter = TopologicalSorter({name: [other for other in before if other in after] for name, before in after.items()})
    sorter.prepare()
    ready, running = list[str](), dict[Future[None], str]()
    workers = min(side_by_side(), max(1, len(after)))
    with shared_cores(workers), ThreadPoolExecutor(workers) as pool:
        while sorter.is_active():
            ready = sorted([*ready, *sorter.get_ready()], key=list(after).index)
            while ready and len(running) < workers:
                name = ready.pop(0)
                running[pool.submit(work, name)] = name
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                future.result()
                sorter.done(running.pop(future))


@contextmanager
def shared_cores(processes: int) -> Iterator[None]:
    """Let processes that start within use their share of the cores, where the caller's environment does not say more.

    Threads of several processes on the same core wait for one another, at every step of a training. The share of
    `DARE_WORKERS` says how many processes each of them may start itself.
    """
    cores = os.cpu_count() or 1
    share = str(max(1, cores // processes))
    ours = {name: share for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS") if name not in os.environ}
    ours["DARE_WORKERS"] = str(max(1, (_allowed() or cores) // processes))
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def in_processes(work: Callable[[T], R], items: Iterable[T], processes: int) -> Iterator[R]:
    """Results of `work`, a function of some module, on every item, computed in several processes, as they come.

    After a failure nothing new starts; it is raised when the others have ended. An interruption ends all. Raises
    InputError where a process dies.
    """
    with shared_cores(processes):  # the processes start within
        pool = ProcessPoolExecutor(processes, get_context("spawn"), _begin)
        try:
            for future in as_completed([pool.submit(work, item) for item in items]):
                yield future.result()
        except BrokenProcessPool as error:
            raise InputError("A process died, out of memory as a rule: with DARE_WORKERS=1 there is one.") from error
        except (KeyboardInterrupt, GeneratorExit):
            for process in list(pool._processes.values()):
                process.terminate()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Begin a process of a pool: an interruption is its parent's to handle, and it ends with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@contextmanager
def running_on(threads: int) -> Iterator[None]:
    """Let torch and compiled loops use so many threads within, as far as the latter were started with as many."""
    import numba  # both here, so that what only lists or schedules runs does not wait for them
    import torch

    before, compiled = torch.get_num_threads(), numba.get_num_threads()  # numba's first call sets those of OpenMP
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
    torch.set_num_threads(threads)  # after numba, whose setting is OpenMP's, and so torch's
    try:
        yield
    finally:
        numba.set_num_threads(compiled)
        torch.set_num_threads(before)


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread within, for many small operations: several would wait for one another at each (measured beside other
    work on two cores, a small training took fifty times the processor time). Sums do not depend on how many there
    are."""
    with running_on(1):
        yield


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
