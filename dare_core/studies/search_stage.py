"""Time of the search stage as it is served: one user's N stored behaviours, C targets, the K of highest score.

The score is that of TWIN and DARE. Item and category fields of a behaviour lie side by side in one row, the scales
are folded into the target, and the position's part of the score is one number per position, the same for all users.
A search is then one pass over the rows, which scores a block of them and keeps its best before the next block is
read. Its time is given with that of merely reading the rows: the limit of any search that looks at every behaviour.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np

from dare_core.evaluation.metrics import Array

CONTENT_FIELDS = 2  # item and category
BLOCK = 64
"""Behaviours scored before the best are looked for: few enough that their rows stay in the cache."""
SUMS = {"reassoc", "contract", "nsz"}
"""Liberties of the compiler that let it add up in vector registers; infinities keep their meaning."""
USERS_BYTES = 2**27
"""Size of all searched users together: several times a processor's cache, because a served user comes from memory."""


@dataclass(frozen=True)
class SearchTime:
    """Microseconds for one user and one target, one value per round."""

    length: int  # behaviours, N
    size: int  # attention size per field, K_A
    searching: Array  # (R,)
    reading: Array  # (R,) adding up the same rows


@numba.njit(nogil=True, fastmath=SUMS, cache=True)
def keep_best(
    rows: np.ndarray, positions: np.ndarray, targets: np.ndarray, best: np.ndarray, where: np.ndarray
) -> None:
    """Fill best and where (C, K), highest score first, from rows (N, D), positions (N,) and targets (C, D)."""
    last = best.shape[1] - 1
    scores = np.empty(BLOCK, np.float32)
    for start in range(0, rows.shape[0], BLOCK):
        size = min(BLOCK, rows.shape[0] - start)
        for c in range(targets.shape[0]):
            most = np.float32(-np.inf)
            for i in range(size):
                score = np.float32(0)
                for j in range(rows.shape[1]):
                    score += rows[start + i, j] * targets[c, j]
                scores[i] = score + positions[start + i]
                most = max(most, scores[i])
            if most <= best[c, last]:
                continue
            for i in range(size):
                if scores[i] <= best[c, last]:
                    continue
                at = last
                while at > 0 and best[c, at - 1] < scores[i]:
                    best[c, at], where[c, at] = best[c, at - 1], where[c, at - 1]
                    at -= 1
                best[c, at], where[c, at] = scores[i], start + i


def search(rows: np.ndarray, positions: np.ndarray, targets: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
    """The K behaviours of highest score for each target, best first.

    Arguments, float32: rows (N, D) of one user's behaviours, the positions' part of the score (N,), targets (C, D)
    with the scales folded in. Returns the behaviours' columns (C, K) and their scores (C, K), with K = N where there
    are fewer than `top_k`. Of equal scores the first is kept; all numbers are taken to be finite.
    """
    kept = min(top_k, len(rows))
    best = np.full((len(targets), kept), -np.inf, np.float32)
    where = np.zeros((len(targets), kept), np.int64)
    if kept:
        keep_best(rows, positions, targets, best, where)
    return where, best


@numba.njit(nogil=True, fastmath=SUMS, cache=True)
def add_up(numbers: np.ndarray) -> np.float32:
    """The sum of (n,) numbers: every byte is read, and hardly anything else is done."""
    total = np.float32(0)
    for i in range(len(numbers)):
        total += numbers[i]
    return total


def measure(length: int, sizes: Sequence[int], rounds: int, threads: int = 1, top_k: int = 20) -> list[SearchTime]:
    """Time searches among `length` behaviours at several attention sizes, in turns within each round.

    The embeddings are random numbers: time does not depend on them. A round takes each of many users once, so that
    none is in the processor's cache. With several threads each takes its share of the users, one request per thread,
    and a time is that of all divided by the number of users.
    """
    widths = {size: CONTENT_FIELDS * size for size in sizes}
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
