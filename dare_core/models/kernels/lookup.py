"""Reading rows of embedding tables, with a backward pass that adds each row's gradient once.

On a CPU the backward pass of `torch.nn.functional.embedding` is most of a training step: it scans all ids for
every part of the table. A plain loop over the ids, compiled, gives the same sums in a small part of the time
(`benchmarks/embedding_gradient.py`).
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def first_derivative_only(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass that refuses to be differentiated once more, because that would silently be wrong.

    PyTorch's `once_differentiable` speaks up only where the incoming gradient has one of its own.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():  # only with create_graph=True
            raise RuntimeError("this part of a model has no second derivative: create_graph must stay off")
        return backward(ctx, *gradients)

    return checked


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
    """Rows of some tables on the CPU; `ids` holds those of all tables for every reader."""

    @staticmethod
    def forward(ctx: Any, ids: Sequence[Sequence[Tensor]], *tables: Tensor) -> tuple[Tensor, ...]:
        ctx.ids = ids
        ctx.shapes = [table.shape for table in tables]
        ctx.set_materialize_grads(False)
        return tuple(
            functional.embedding(numbers, table)
            for reader in ids
            for numbers, table in zip(reader, tables, strict=True)
        )

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        totals: list[Tensor | None] = [None] * len(ctx.shapes)
        numbers = [ids for reader in ctx.ids for ids in reader]
        for i, (ids, gradient) in enumerate(zip(numbers, gradients, strict=True)):
            if gradient is None:
                continue
            at = i % len(ctx.shapes)
            total = totals[at]
            if total is None:
                total = totals[at] = gradient.new_zeros(ctx.shapes[at])
            rows = gradient.reshape(-1, total.shape[1]).contiguous()
            add_rows(total.numpy(), ids.reshape(-1).contiguous().numpy(), rows.numpy())
        return None, *totals


def lookup(tables: Sequence[Tensor], ids: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
    """Rows (..., d) of each table (rows, d), for every reader's ids (...), one tensor a table."""
    if tables[0].device.type != "cpu" or not torch.is_grad_enabled():
        return [[functional.embedding(i, table) for i, table in zip(reader, tables, strict=True)] for reader in ids]
    found = iter(_Lookup.apply(ids, *tables))
    return [[next(found) for _ in tables] for _ in ids]
