"""The arithmetic of search on a CPU: inner products, top-K as a mask, softmax over what is kept.

Each does in one pass, forward and backward, what would take several passes over (H, C, N) or (H, N, d) numbers
with PyTorch's own operations; on a GPU those are used.
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

PADDING_SCORE = -(2.0**32) + 1
"""Score of padding before top-K, as in the published code."""


class _InnerProducts(torch.autograd.Function):
    """q k^T with a gradient of k that is contiguous, which reading rows needs."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> Tensor:
        ctx.save_for_backward(q, k)
        return q @ k.transpose(-1, -2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        q, k = ctx.saved_tensors
        return gradient @ k, gradient.transpose(-1, -2) @ q


def inner_products(q: Tensor, k: Tensor) -> Tensor:
    """(H, C, N) products of targets q (H, C, d) and behaviours k (H, N, d)."""
    if q.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return q @ k.transpose(-1, -2)
    return _InnerProducts.apply(q, k)  # type: ignore[no-any-return]


@numba.njit(cache=True, parallel=True)
def mark_best(ranking: np.ndarray, valid: np.ndarray, top_k: int, keep: np.ndarray) -> None:
    """keep (R, N) = true at the K highest valid columns of each row; `valid` (R / C, N) serves C rows each."""
    rows, length = ranking.shape
    each = rows // len(valid)
    for row in numba.prange(rows):
        values = np.empty(top_k, ranking.dtype)  # the best so far, descending
        columns = np.empty(top_k, np.int64)
        found = 0
        for column in range(length - 1, -1, -1):
            if not valid[row // each, column]:
                continue
            value = ranking[row, column]
            if found == top_k and not value > values[top_k - 1]:
                continue
            at = found if found < top_k else top_k - 1
            while at > 0 and value > values[at - 1]:
                values[at] = values[at - 1]
                columns[at] = columns[at - 1]
                at -= 1
            values[at] = value
            columns[at] = column
            found = min(found + 1, top_k)
        for k in range(found):
            keep[row, columns[k]] = True


def keep_best(ranking: Tensor, valid: Tensor, top_k: int) -> Tensor:
    """(H, C, N) true for the K valid columns of highest rank, of equal ones the newest (rightmost); fewer where
    fewer are valid. `valid` (H, 1, N) or (H, C, N).

    `torch.topk` sorts what it finds and gives columns; search needs neither. Nearly every column is refused by one
    comparison with the K-th best so far.
    """
    length = ranking.shape[-1]
    keep = torch.zeros(ranking.shape, dtype=torch.bool)
    rows = in_numpy(ranking).reshape(-1, length)
    mark_best(rows.numpy(), valid.reshape(-1, length).numpy(), min(top_k, length), keep.view(-1, length).numpy())
    return keep


def in_numpy(tensor: Tensor) -> Tensor:
    """Detached, and in a precision that numpy has."""
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))


@numba.njit(cache=True, parallel=True)
def softmax_rows(scores: np.ndarray, keep: np.ndarray, weights: np.ndarray) -> None:
    """weights (R, N) = softmax of each row over its kept columns, zero elsewhere; `keep` (R / C, N) serves C rows."""
    rows, length = scores.shape
    each = rows // len(keep)
    for row in numba.prange(rows):
        kept = keep[row // each]
        most = -np.inf
        for column in range(length):
            if kept[column]:
                most = max(most, scores[row, column])
        total = scores.dtype.type(0)
        for column in range(length):
            weight = scores.dtype.type(0)
            if kept[column]:
                weight = np.exp(scores[row, column] - scores.dtype.type(most))
            weights[row, column] = weight
            total += weight
        if total != 0:
            for column in range(length):
                weights[row, column] /= total


@numba.njit(cache=True, parallel=True, fastmath={"reassoc", "contract"})
def softmax_gradient(weights: np.ndarray, gradient: np.ndarray, out: np.ndarray) -> None:
    """out = weights * (gradient - sum of weights * gradient), a row each."""
    rows, length = weights.shape
    for row in numba.prange(rows):
        total = weights.dtype.type(0)
        for column in range(length):
            total += weights[row, column] * gradient[row, column]
        for column in range(length):
            out[row, column] = weights[row, column] * (gradient[row, column] - total)


class _Attend(torch.autograd.Function):
    """Softmax over the columns kept."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, keep: Tensor) -> Tensor:
        length = scores.shape[-1]
        weights = torch.empty(scores.shape, dtype=scores.dtype)
        rows = scores.reshape(-1, length).numpy()
        softmax_rows(rows, keep.reshape(-1, length).numpy(), weights.view(-1, length).numpy())
        ctx.save_for_backward(weights)
        return weights

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (weights,) = ctx.saved_tensors
        out, length = torch.empty_like(weights), weights.shape[-1]
        rows = gradient.reshape(-1, length).numpy()
        softmax_gradient(weights.view(-1, length).numpy(), rows, out.view(-1, length).numpy())
        return out, None


def attend(scores: Tensor, keep: Tensor) -> Tensor:
    """Softmax of the scores (H, C, N) over the positions kept; zero elsewhere, and for rows that keep none."""
    if scores.device.type != "cpu" or scores.dtype not in (torch.float32, torch.float64):
        weights = torch.softmax(scores.masked_fill(~keep, PADDING_SCORE), -1)
        return weights * keep
    return _Attend.apply(scores, keep)  # type: ignore[no-any-return]
