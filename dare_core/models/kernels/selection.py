"""The arithmetic of search: scaled inner products, top-K as a mask, softmax over what is kept, pooling.

Products and pooling are nodes of their own in the autograd graph: a small batch costs as much for the many small
nodes of PyTorch's own as for what they compute.
"""

from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from dare_core.models.kernels.autograd import first_derivative_only

PADDING_SCORE = -(2.0**32) + 1
"""Score of padding before top-K, as in the published code."""


def _plus_product(total: Tensor | None, a: Tensor, b: Tensor) -> Tensor:
    """total + a @ b, in the memory of `total` where its shape allows no more than that."""
    if total is None:
        return a @ b
    return torch.baddbmm(total, a, b) if a.dim() == b.dim() == 3 else total.add_(a @ b)


class _ScaledProducts(torch.autograd.Function):
    """Sum over fields of scale * q k^T: (H, C, N), or (1, N) where a row serves the whole batch."""

    @staticmethod
    def forward(ctx: Any, scales: Sequence[float], *rows: Tensor) -> Tensor:
        ctx.scales = scales
        ctx.save_for_backward(*rows)
        total = None
        for scale, q, k in zip(scales, rows, rows[len(scales) :], strict=False):
            total = _plus_product(total, q * scale, k.mT)
        assert total is not None
        return total

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows = ctx.saved_tensors
        of_q, of_k = [], []
        gradient = gradient.to(rows[0].dtype)
        for scale, q, k in zip(ctx.scales, rows, rows[len(ctx.scales) :], strict=False):
            own = gradient if q.dim() == gradient.dim() else gradient.sum((0, 1)).unsqueeze(0)
            of_q.append((own @ k).mul_(scale))
            of_k.append(own.mT @ (q * scale))
        return None, *of_q, *of_k


def scaled_products(scales: Sequence[float], targets: Sequence[Tensor], behaviours: Sequence[Tensor]) -> Tensor:
    """(H, C, N) sum over fields of scale * <q, k>: q (H, C, d) and k (H, N, d), or (1, d) and (N, d) for all."""
    return _ScaledProducts.apply(scales, *targets, *behaviours)  # type: ignore[no-any-return]


class _Pool(torch.autograd.Function):
    """All fields side by side: the targets' rows, and the behaviours' rows in the mean by some weights."""

    @staticmethod
    def forward(ctx: Any, candidates: int, weights: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(weights, *rows)
        targets, behaviours = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        v = torch.cat([rows.expand(len(weights), candidates, -1) for rows in targets], -1)
        return v, torch.cat([weights @ rows for rows in behaviours], -1)

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, of_v: Tensor, of_h: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given, *rows = ctx.saved_tensors
        weights = given.to(rows[0].dtype)  # autocast leaves the softmax in lower precision
        targets, behaviours = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        of_targets, of_behaviours = [], []
        of_weights = None
        widths = [rows.shape[-1] for rows in targets]
        for part, row in zip(of_v.to(weights.dtype).split(widths, -1), targets, strict=True):
            of_targets.append(part if row.dim() == 3 else part.sum((0, 1)).unsqueeze(0))
        for part, row in zip(of_h.to(weights.dtype).split(widths, -1), behaviours, strict=True):
            if ctx.needs_input_grad[1]:
                of_weights = _plus_product(of_weights, part, row.mT)
            one = row.dim() == 2  # a row serves the whole batch
            of_behaviours.append((weights.flatten(0, 1) if one else weights).mT @ (part.flatten(0, 1) if one else part))
        return None, None if of_weights is None else of_weights.to(given.dtype), *of_targets, *of_behaviours


def pooled(
    weights: Tensor, targets: Sequence[Tensor], behaviours: Sequence[Tensor], candidates: int
) -> tuple[Tensor, Tensor]:
    """Target v (H, C, W) and history h (H, M, W) over all fields, from weights (H, M, N)."""
    return _Pool.apply(candidates, weights, *targets, *behaviours)  # type: ignore[no-any-return]


@numba.njit(cache=True, parallel=True)
def mark_best(ranking: np.ndarray, valid: np.ndarray, top_k: int, keep: np.ndarray) -> None:
    """keep (R, N) = true at the K highest valid columns of each row; `valid` (R / C, N) serves C rows each.

    The K-th best is found by halving the range of values: each count takes one pass that the compiler vectorises.
    """
    rows, length = ranking.shape
    each = rows // len(valid)
    for row in numba.prange(rows):
        values = np.where(valid[row // each], ranking[row], -np.inf)
        high = values.max()
        low = high
        for column in range(length):
            if values[column] > -np.inf:
                low = min(low, values[column])
        if low == -np.inf:
            continue
        # At least K are `low` or more, or there are no more; less than K are `high` or more, or `high` is `low`.
        if (values >= high).sum() >= top_k:
            low = high
        while low < high:
            middle = low + (high - low) / 2
            if not low < middle < high:
                break
            count = 0
            for column in range(length):
                count += values[column] >= middle
            if count >= top_k:
                low = middle
            else:
                high = middle
            if count == top_k:
                break
        above = 0
        for column in range(length):
            above += values[column] > low
        room = top_k - above
        for column in range(length - 1, -1, -1):
            if values[column] > low:
                keep[row, column] = True
            elif values[column] == low and room > 0:
                keep[row, column] = True
                room -= 1


def best(ranking: Tensor, valid: Tensor, top_k: int, retrieve_padding: bool = False) -> Tensor:
    """(H, C, N) true for the K columns of highest rank; padding last, and kept only where that is asked for.

    `valid` (H, 1, N) or (H, C, N). On a CPU, of equal ranks the newest (rightmost) are kept.
    """
    if ranking.device.type == "cpu" and not retrieve_padding:
        length = ranking.shape[-1]
        ranking = ranking.detach().to(torch.promote_types(ranking.dtype, torch.float32))  # what numpy has
        marked = np.zeros((ranking.numel() // length, length), bool)
        numbers, kept = (tensor.reshape(-1, length).numpy() for tensor in (ranking, valid))
        mark_best(numbers, kept, min(top_k, length), marked)
        return torch.from_numpy(marked).view(ranking.shape)
    columns = ranking.masked_fill(~valid, PADDING_SCORE).topk(min(top_k, ranking.shape[-1]), -1, sorted=False).indices
    keep = torch.zeros(ranking.shape, dtype=torch.bool, device=ranking.device).scatter_(-1, columns, True)
    return keep if retrieve_padding else keep.logical_and_(valid)


def attend(scores: Tensor, keep: Tensor) -> Tensor:
    """Softmax of the scores (H, C, N) over the positions kept; zero elsewhere, and for rows that keep none."""
    return torch.softmax(scores.masked_fill(~keep, PADDING_SCORE), -1) * keep
