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


@numba.njit(cache=True, parallel=True)
def _add_rows(table: np.ndarray, ids: np.ndarray, rows: np.ndarray, parts: int) -> None:
    for part in numba.prange(parts):
        for i in range(len(ids)):
            row = ids[i]
            if row % parts == part:
                for j in range(rows.shape[1]):
                    table[row, j] += rows[i, j]


def add_rows(table: np.ndarray, ids: np.ndarray, rows: np.ndarray) -> None:
    """table[ids[i]] += rows[i] for every i.

    Every row of the table is summed by one thread in the order of i: the result does not depend on threads.
    """
    _add_rows(table, ids, rows, numba.get_num_threads())


class _Lookup(torch.autograd.Function):
    """Rows of a table on the CPU, for several tensors of ids."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, *ids: Tensor) -> tuple[Tensor, ...]:
        ctx.save_for_backward(*ids)
        ctx.shape = table.shape
        ctx.set_materialize_grads(False)
        return tuple(functional.embedding(numbers, table) for numbers in ids)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        given = [(ids, g) for ids, g in zip(ctx.saved_tensors, gradients, strict=True) if g is not None]
        nothing = (None,) * len(gradients)
        if not given:
            return None, *nothing
        total = given[0][1].new_zeros(ctx.shape)
        for ids, gradient in given:
            rows = gradient.reshape(-1, ctx.shape[1]).contiguous()
            add_rows(total.numpy(), ids.reshape(-1).contiguous().numpy(), rows.numpy())
        return total, *nothing


def lookup(table: Tensor, *ids: Tensor) -> tuple[Tensor, ...]:
    """Rows (..., d) of a table (rows, d) for each of some tensors of ids (...)."""
    if table.device.type != "cpu":
        return tuple(functional.embedding(numbers, table) for numbers in ids)
    return _Lookup.apply(table, *ids)  # type: ignore[no-any-return]
