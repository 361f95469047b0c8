"""The search stage alone, as it is served: one user's stored behaviours, C targets, the K of highest score.

The score is that of TWIN and DARE (`search.ScaledDotProduct`). Its content fields lie side by side in one
contiguous row a behaviour, its scales are folded into the targets, and what a position adds is the same for
all users: N numbers. A search is then one pass over the rows, which scores a block and keeps the best of it
before the next block is read (`benchmarks/search_stage.py`: its time beside that of reading the rows).
"""

import math

import numba
import numpy as np
import torch

from dare_core.errors import InputError
from dare_core.models.embeddings import Rows

CONTENT = ("item", "category")
BLOCK = 64
"""Behaviours scored before the best are looked for: few enough that their rows stay in the cache."""
SUMS = {"reassoc", "contract", "nsz"}
"""Liberties of the compiler that let it add up in vector registers; infinities keep their meaning."""


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

    Arguments, float32: rows (N, D) of one user's behaviours, what their positions add (N,), targets (C, D)
    with the scales folded in. Returns the behaviours' numbers (C, K) and their scores (C, K), with K = N where
    there are fewer than `top_k`. Of equal scores the first is kept; all numbers are taken to be finite. Raises
    InputError for arrays that do not fit.
    """
    if rows.ndim != 2 or targets.ndim != 2 or positions.shape != rows.shape[:1] or targets.shape[1] != rows.shape[1]:
        raise InputError(
            f"search stage: rows {rows.shape}, positions {positions.shape} and targets {targets.shape} do not "
            "fit: expected (N, D), (N,) and (C, D)."
        )
    if any(array.dtype != np.float32 for array in (rows, positions, targets)):
        raise InputError("search stage: rows, positions and targets must be float32: use .astype(np.float32).")
    if top_k < 1:
        raise InputError(f"search stage: top_k is {top_k}, but at least 1 behaviour is retrieved.")
    kept = min(top_k, len(rows))
    best = np.full((len(targets), kept), -np.inf, np.float32)
    where = np.zeros((len(targets), kept), np.int64)
    if kept:
        keep_best(rows, positions, targets, best, where)
    return where, best


def stored_rows(behaviour: Rows) -> np.ndarray:
    """(N, 2 d) float32: a user's behaviours as they are stored, from attention embeddings (1, N, d) by field."""
    return np.ascontiguousarray(torch.cat([behaviour[field][0] for field in CONTENT], -1).detach().numpy())


def folded_targets(target: Rows) -> np.ndarray:
    """(C, 2 d) float32: targets with the score's scale 1 / sqrt(2 d), from attention embeddings (1, C, d)."""
    scale = math.sqrt(sum(target[field].shape[-1] for field in CONTENT))
    return np.ascontiguousarray((torch.cat([target[field][0] for field in CONTENT], -1) / scale).detach().numpy())


def position_scores(target: Rows, behaviour: Rows) -> np.ndarray:
    """(N,) float32: what each position adds to a score, the same for every user and target."""
    q, k = target["position"][0], behaviour["position"]
    return (k @ q / math.sqrt(len(q))).detach().numpy()
