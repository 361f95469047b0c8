"""The runs of a sweep on this machine, in several processes."""

from collections.abc import Generator, Sequence
from functools import lru_cache, partial

from dare_core.errors import InputError
from dare_core.schedule import in_processes, side_by_side
from dare_core.sweeps.plan import Planned
from dare_core.training.devices import free_memory
from dare_core.training.runs import RunStore

Ended = Generator[tuple[str, str], None, None]
"""Key of each run as it ends, and why it failed; empty where it did not."""


@lru_cache(1)
def store_of(log: str, device: str, threads: int) -> RunStore:
    """A store that has one log in memory, kept from run to run of a process."""
    return RunStore(False, device, threads)


def reason_of(error: Exception) -> str:
    """Why a run failed, in one sentence."""
    words = " ".join(str(error).split()[:60])
    return words if isinstance(error, InputError) else f"{type(error).__name__}: {words}"


def compute(run: Planned, device: str, threads: int) -> tuple[str, str]:
    """Compute a run and store it; returns its key, and why it failed where it did."""
    try:
        store_of(run.config.log, device, threads).get(run.config)
    except Exception as error:
        return run.key, reason_of(error)
    return run.key, ""


def on_this_machine(runs: Sequence[Planned], jobs: int, device: str, threads: int) -> Ended:
    """Compute runs whose logs are in the store. A failed run stops no other; where a process dies, all left fail.

    `jobs` : runs at a time, fewer where memory does not hold as many; 0: as many as cores allow, one on a GPU
    """
    jobs = jobs or (side_by_side() // threads if device == "cpu" else 1)
    fit = free_memory() // max((run.memory for run in runs), default=1)
    jobs, left = max(1, min(jobs, len(runs), fit)), [run.key for run in runs]
    work = partial(compute, device=device, threads=threads)
    try:
        for key, reason in in_processes(work, runs, jobs) if jobs > 1 else map(work, runs):
            left.remove(key)
            yield key, reason
    except InputError:
        yield from ((key, "a process died, out of memory as a rule: take fewer --jobs.") for key in left)
