"""Reading rows of an embedding table, with a backward pass that adds each row's gradient once.

On a CPU the backward pass of `torch.nn.functional.embedding` is most of a training step: it scans all ids for
every part of the table. A plain loop over the ids, compiled, gives the same sums in a small part of the time
(`benchmarks/embedding_gradient.py`).
"""

from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


@numba.njit(cache=True)
def add_rows(table: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    """table[ids[i]] += rows[i] for every i in turn, so that the result does not depend on threads."""
    for i in range(len(ids)):
        row = ids[i]
        for j in range(rows.shape[1]):
            table[row, j] += rows[i, j]


class _Lookup(torch.autograd.Function):
    """Rows of a table on the CPU."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.shape = table.shape
        return functional.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (ids,) = ctx.saved_tensors
        total = gradient.new_zeros(ctx.shape)
        rows = gradient.reshape(-1, ctx.shape[1]).contiguous()
        add_rows(total.numpy(), ids.reshape(-1).contiguous().numpy(), rows.numpy())
        return total, None


def lookup(table: Tensor, ids: Tensor) -> Tensor:
    """Rows (..., d) of a table (rows, d) for ids (...)."""
    if table.device.type != "cpu":
        return functional.embedding(ids, table)
    return _Lookup.apply(table, ids)  # type: ignore[no-any-return]
