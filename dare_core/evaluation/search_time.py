"""How long the search stage takes, beside merely reading what it searches: the limit of any search that
looks at every behaviour."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from dare_core.evaluation.metrics import Array
from dare_core.evaluation.search_stage import CONTENT, SUMS, search

USERS_BYTES = 2**27
"""The searched users together: several times a processor's cache, because a served user comes from memory."""


@dataclass(frozen=True)
class SearchTime:
    """Microseconds for one user and one target, a value a round."""

    length: int  # behaviours, N
    size: int  # attention size a field, K_A
    searching: Array  # (R,)
    reading: Array  # (R,) adding up the same rows


@numba.njit(nogil=True, fastmath=SUMS, cache=True)
def add_up(numbers: np.ndarray) -> np.float32:
    """The sum of (n,) numbers: every byte is read, and hardly anything else is done."""
    total = np.float32(0)
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def measure(length: int, sizes: Sequence[int], rounds: int, threads: int = 1, top_k: int = 20) -> list[SearchTime]:
    """Time searches among `length` behaviours at several attention sizes, in turns within each round.

    The embeddings are random numbers: time does not depend on them. A round takes each of many users once,
    so that none is in the processor's cache. With several threads each takes its share of the users, one
    request a thread, and a time is that of all divided by the number of users.
    """
    widths = {size: len(CONTENT) * size for size in sizes}
    generator = np.random.default_rng(0)
    # The same memory serves every size: cut into fewer, wider users.
    numbers = generator.standard_normal(max(USERS_BYTES // 4, length * max(widths.values())), dtype=np.float32)
    positions = generator.standard_normal(length, dtype=np.float32)
    pool = ThreadPoolExecutor(threads)

    def timed(work: Callable[[np.ndarray], object], users: np.ndarray) -> float:
        def share(first: int) -> None:
            for user in users[first::threads]:
                work(user)

        started = time.perf_counter()
        list(pool.map(share, range(threads)))
        return 1e6 * (time.perf_counter() - started) / len(users)

    found: dict[int, tuple[list[float], list[float]]] = {size: ([], []) for size in sizes}
    with pool:
        for turn in range(rounds + 1):  # the first one compiles
            for size, width in widths.items():
                count = len(numbers) // (length * width)
                users = numbers[: count * length * width].reshape(count, length, width)
                target = generator.standard_normal((1, width), dtype=np.float32)
                searching = timed(lambda rows, t=target: search(rows, positions, t, top_k), users)  # type: ignore[misc]
                reading = timed(add_up, users.reshape(count, -1))
                if turn:
                    found[size][0].append(searching)
                    found[size][1].append(reading)
    return [SearchTime(length, size, np.array(a), np.array(b)) for size, (a, b) in found.items()]
