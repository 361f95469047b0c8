"""Adam for embedding tables of millions of rows: a step touches only the rows that its batch reads.

The result equals dense Adam's. A step reads the rows of its batch into a small leaf, moved to where dense Adam would
have them by now, and afterwards updates those rows alone. Before anything else reads a table, as validation does, all
its rows are moved (`RowAdam.catch_up`). A small table gains nothing by it: see `dare_core.training.optimizers`.

Dense Adam also moves rows without a gradient, by the momentum that they still have. A weight with moments m, v
after step t and no gradient since has moved, g steps later, by

    sum over j = 1..g of  lr m b1^j / (1 - b1^(t+j))  /  ( sqrt(v b2^j / (1 - b2^(t+j))) + eps )
    =  m * sum over j of a_j / (sqrt(v) c_j + eps),

where a_j and c_j depend on t alone. Few steps are summed directly. For many, the remaining displacement from t on is
taken, minus that from t + g on. Each is an integral over the discrete measure with weights a_j at c_j; because the c_j
lie close together, a few Gauss nodes give it for every v (Golub and Welsch 1969). The relative error is below 1e-9
(`tests/test_row_adam.py`).
"""

from collections.abc import Sequence

import numba
import numpy as np
import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch, Side
from dare_core.models.embeddings import Excerpt, Tables

HORIZON = 400
"""Steps after which the momentum left is below double precision: 0.9^400 = 5e-19."""
NOTHING_LEFT = 1e-10
"""Remaining displacement below this share of the momentum is ignored: after 218 steps."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""torch.optim.Adam's own values, which the published code leaves as they are."""
MOST_NODES = 12
"""Gauss nodes of a row's remaining displacement, at most."""
BLOCK = 128
"""Rows whose memory is asked for together before any of them is computed with: the reads overlap."""


def gauss_rules(measure: np.ndarray, points: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights (T, count) of the Gauss rules of T discrete measures (T, P) at points (T, P).

    The Lanczos process, orthogonalised in full, gives each measure's Jacobi matrix; its eigenvalues are the
    nodes, and the first numbers of its eigenvectors the roots of the weights.
    """
    low, high = points.min(1, keepdims=True), points.max(1, keepdims=True)
    middle, half = (low + high) / 2, (high - low) / 2
    x = (points - middle) / half
    total = measure.sum(1, keepdims=True)
    vector = np.sqrt(measure / total)
    basis = np.zeros((len(points), count, points.shape[1]))
    jacobi = np.zeros((len(points), count, count))
    for k in range(count):
        basis[:, k] = vector
        rest = x * vector
        jacobi[:, k, k] = (rest * vector).sum(1)
        for _ in range(2):
            rest = rest - (basis.transpose(0, 2, 1) @ (basis @ rest[:, :, None]))[:, :, 0]
        length = np.linalg.norm(rest, axis=1, keepdims=True)
        if k + 1 < count:
            jacobi[:, k, k + 1] = jacobi[:, k + 1, k] = length[:, 0]
        vector = rest / length
    nodes, vectors = np.linalg.eigh(jacobi)
    return nodes * half + middle, total * vectors[:, 0] ** 2


def make_schedule(steps: int, learning_rate: float, dtype: np.dtype) -> np.ndarray:
    """(T + 1,) what all rows share at a step t of at most T steps, in the precision of the tables; step 0 comes before
    all."""
    fields = [
        ("rate", dtype),  # lr / (1 - b1^t)
        ("scale", dtype),  # 1 / sqrt(1 - b2^t)
        ("first", dtype),  # b1^t, zero beyond the horizon
        ("second", dtype),  # b2^t
        ("root", dtype),  # b2^(t / 2)
        ("count", np.int64),  # nodes of the remaining displacement from step t on
        ("nodes", dtype, MOST_NODES),
        ("weights", dtype, MOST_NODES),
    ]
    b1, b2 = BETAS
    t = np.arange(steps + 1, dtype=np.float64)
    schedule = np.zeros(len(t), np.dtype(fields, align=True))
    schedule["rate"][1:] = learning_rate / (1 - b1 ** t[1:])
    schedule["scale"][1:] = 1 / np.sqrt(1 - b2 ** t[1:])
    schedule["first"] = np.where(t > HORIZON, 0, b1**t)
    schedule["second"], schedule["root"] = b2**t, b2 ** (t / 2)
    count = schedule["count"] = np.where(
        t < 48, MOST_NODES, np.where(t < 128, 6, 4)
    )  # early, the c_j lie further apart
    j = np.arange(1, HORIZON + 1)
    for start in range(1, len(t), 256):
        for number in np.unique(count[start : start + 256]):
            at = start + np.flatnonzero(count[start : start + 256] == number)
            later = at[:, None] + j
            measure, points = learning_rate * b1**j / (1 - b1**later), np.sqrt(b2**j / (1 - b2**later))
            nodes, weights = gauss_rules(measure, points, number)
            schedule["nodes"][at, :number], schedule["weights"][at, :number] = nodes, weights
    return schedule


@numba.njit(cache=True, error_model="numpy")
def coast(way, m, root, step, gap, schedule):  # type: ignore[no-untyped-def]
    """way (d,) = how far weights move in `gap` steps without gradient after step `step`.

    `m` (d,) is the first moment and `root` (d,) the square root of the second, both as of `step`.
    """
    epsilon = way.dtype.type(EPSILON)
    for i in range(len(way)):
        way[i] = 0
    here, there, over = schedule[step], schedule[step + gap], schedule[gap]
    if gap <= here.count + there.count:
        for j in range(1, gap + 1):
            a, c = schedule[step + j].rate * schedule[j].first, schedule[step + j].scale * schedule[j].root
            for i in range(len(way)):
                way[i] += a * m[i] / (root[i] * c + epsilon)
        return
    for k in range(here.count):
        a, c = here.weights[k], here.nodes[k]
        for i in range(len(way)):
            way[i] += a * m[i] / (root[i] * c + epsilon)
    if over.first > NOTHING_LEFT:
        for k in range(there.count):
            a, c = there.weights[k] * over.first, there.nodes[k] * over.root
            for i in range(len(way)):
                way[i] -= a * m[i] / (root[i] * c + epsilon)


@numba.njit(cache=True)
def distinct(ids, mark, place):  # type: ignore[no-untyped-def]
    """The distinct ids, ascending; place[id] becomes each one's rank. `mark` is a bitmap, zero before and after."""
    for i in range(len(ids)):
        mark[ids[i] >> 3] |= np.uint8(1 << (ids[i] & 7))
    rows = np.empty(min(len(ids), len(place)), np.int32)
    found = 0
    for byte in range(len(mark)):
        if mark[byte]:
            for bit in range(8):
                if mark[byte] & (1 << bit):
                    rows[found] = 8 * byte + bit
                    place[8 * byte + bit] = found
                    found += 1
            mark[byte] = 0
    return rows[:found]


@numba.njit(cache=True)
def ask(rows, table, moments, last):  # type: ignore[no-untyped-def]
    """Ask for the memory of some rows; the caller keeps the result, or the compiler would remove the reads."""
    total = table.dtype.type(0)
    for row in rows:
        total += table[row, 0] + moments[row, 0, 0] + moments[row, 1, 0] + last[row]
    return total


@numba.njit(cache=True, error_model="numpy", parallel=True)
def read_rows(rows, table, moments, last, now, schedule, out):  # type: ignore[no-untyped-def]
    """out[i] = table[rows[i]] as after dense Adam's step `now`; `out` may be the table, with all its rows."""
    blocks = (len(rows) + BLOCK - 1) // BLOCK
    asked = np.empty(blocks, table.dtype)
    for block in numba.prange(blocks):
        start, end = block * BLOCK, min((block + 1) * BLOCK, len(rows))
        asked[block] = ask(rows[start:end], table, moments, last)
        way, root = np.empty_like(table[0]), np.empty_like(table[0])
        for i in range(start, end):
            row = rows[i]
            step = last[row]
            if step == 0 or step == now:  # never had a gradient, or nothing is missing
                for k in range(len(way)):
                    out[i, k] = table[row, k]
            else:
                for k in range(len(way)):
                    root[k] = np.sqrt(moments[row, 1, k])
                coast(way, moments[row, 0], root, step, now - step, schedule)
                for k in range(len(way)):
                    out[i, k] = table[row, k] - way[k]
    return asked


@numba.njit(cache=True, error_model="numpy", parallel=True)
def update_rows(rows, table, moments, last, now, schedule, read, gradient):  # type: ignore[no-untyped-def]
    """Adam's step `now` + 1 on some rows, with what `read_rows` gave for them and its gradient."""
    number = table.dtype.type
    b1, b2, epsilon = number(BETAS[0]), number(BETAS[1]), number(EPSILON)
    new_first, new_second = number(1 - BETAS[0]), number(1 - BETAS[1])
    rate, scale = schedule[now + 1].rate, schedule[now + 1].scale
    blocks = (len(rows) + BLOCK - 1) // BLOCK
    asked = np.empty(blocks, table.dtype)
    for block in numba.prange(blocks):
        start, end = block * BLOCK, min((block + 1) * BLOCK, len(rows))
        asked[block] = ask(rows[start:end], table, moments, last)
        for i in range(start, end):
            row = rows[i]
            gap = now - last[row]
            first, second = schedule[gap].first * b1, schedule[gap].second * b2
            last[row] = now + 1
            for k in range(table.shape[1]):
                g = gradient[i, k]
                m = first * moments[row, 0, k] + new_first * g
                v = second * moments[row, 1, k] + new_second * g * g
                moments[row, 0, k] = m
                moments[row, 1, k] = v
                table[row, k] = read[i, k] - rate * m / (np.sqrt(v) * scale + epsilon)
    return asked


def aligned_zeros(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Zeros at the start of a cache line, in NumPy's memory, which the system may map in large pages.

    Reading rows here and there takes 0.8 of the time that it takes in PyTorch's memory, writing them 0.7.
    """
    line = 64 // dtype.itemsize
    memory = np.zeros(int(np.prod(shape)) + line, dtype)
    start = -memory.ctypes.data % 64 // dtype.itemsize
    return memory[start : start + int(np.prod(shape))].reshape(shape)


class TableState:
    """One table's moments, and the step after which each row is up to date (0: no gradient yet).

    The table moves to memory of `aligned_zeros`.
    """

    def __init__(self, table: nn.Parameter) -> None:
        rows, width = table.shape
        dtype = table.detach().numpy().dtype
        self.weights = aligned_zeros((rows, width), dtype)
        self.weights[:] = table.detach().numpy()
        table.data = torch.from_numpy(self.weights)
        self.moments = aligned_zeros((rows, 2, width), dtype)  # of a row side by side
        self.last = np.zeros(rows, np.int32)


class Distinct:
    """Finds the distinct ids of a field; keeps its scratch memory, which has the size of the field's tables."""

    def __init__(self, rows: int) -> None:
        self.mark = np.zeros(rows // 8 + 1, np.uint8)
        self.place = np.zeros(rows, np.int32)

    def __call__(self, ids: dict[Side, Tensor]) -> tuple[np.ndarray, dict[Side, Tensor]]:
        """The distinct ids (U,) of all sides, ascending, and the ids again as their ranks."""
        flat = {side: tensor.reshape(-1).numpy() for side, tensor in ids.items()}
        rows = distinct(np.concatenate(list(flat.values())), self.mark, self.place)
        ranks = {side: torch.from_numpy(self.place[numbers]).view(ids[side].shape) for side, numbers in flat.items()}
        return rows, ranks


class RowAdam:
    """Adam on the tables of some modules: `prepare`, forward, backward, `step`; `catch_up` before anything else
    reads them. At most `steps` steps; no weight decay. Tables of less than `fewest` rows are left to others.

    The tables must be contiguous, on the CPU and all of one dtype.
    """

    def __init__(self, modules: Sequence[Tables], learning_rate: float, steps: int, fewest: int = 0) -> None:
        self.states = {
            (module, field): TableState(table)
            for module in modules
            for field, table in module.tables.items()
            if len(table) >= fewest
        }
        self.finders = {field: Distinct(len(state.weights)) for (_, field), state in self.states.items()}
        dtype = next(iter(self.states.values())).weights.dtype
        self.schedule = make_schedule(steps, learning_rate, dtype)
        self.steps = 0

    def prepare(self, batch: Batch) -> None:
        """Read the rows of a batch: until `step`, the modules compute with these."""
        found: dict[tuple[str, tuple[Side, ...]], tuple[np.ndarray, dict[Side, Tensor]]] = {}
        for (module, field), state in self.states.items():
            if (field, module.sides) not in found:
                ids = {side: module.ids(batch, side)[field] for side in module.sides}
                found[field, module.sides] = self.finders[field](ids)
            rows, ranks = found[field, module.sides]
            leaf = np.empty((len(rows), state.weights.shape[1]), state.weights.dtype)
            read_rows(rows, state.weights, state.moments, state.last, self.steps, self.schedule, leaf)
            module.excerpts[field] = Excerpt(torch.from_numpy(leaf).requires_grad_(), rows, ranks)

    def step(self) -> None:
        """Update the rows that were prepared, with the gradients that arrived there."""
        for (module, field), state in self.states.items():
            excerpt = module.excerpts.pop(field)
            read = excerpt.leaf.detach().numpy()
            gradient = np.zeros_like(read) if excerpt.leaf.grad is None else excerpt.leaf.grad.numpy()
            update_rows(
                excerpt.rows, state.weights, state.moments, state.last, self.steps, self.schedule, read, gradient
            )
        self.steps += 1

    def catch_up(self) -> None:
        """Move every row to where dense Adam would have it by now."""
        for state in self.states.values():
            table, moments, last = state.weights, state.moments, state.last
            read_rows(np.arange(len(last), dtype=np.int32), table, moments, last, self.steps, self.schedule, table)
            gap = self.steps - last
            moments[:, 0] *= self.schedule["first"][gap][:, None]
            moments[:, 1] *= self.schedule["second"][gap][:, None]
            last[last > 0] = self.steps
