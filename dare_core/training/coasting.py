"""How far a weight moves under Adam while it gets no gradient.

Dense Adam also moves rows without a gradient, by the momentum that they still have. A weight with moments m, v
after step t and no gradient since has moved, g steps later, by

    sum over j = 1..g of  lr m b1^j / (1 - b1^(t+j))  /  ( sqrt(v b2^j / (1 - b2^(t+j))) + eps )
    =  m * sum over j of a_j / (sqrt(v) c_j + eps),

where a_j and c_j depend on t alone. Few steps are summed as they stand. For many, the whole way that is left
from t on is taken, less the way that is left from t + g on. Each is an integral over the discrete measure with
weights a_j at c_j; because the c_j lie close together, a few Gauss nodes give it for every v (Golub and Welsch
1969). The relative error is below 1e-9 (`tests/test_row_adam.py`).
"""

import numba
import numpy as np

HORIZON = 400
"""Steps after which the momentum left is below double precision: 0.9^400 = 5e-19."""
NOTHING_LEFT = 1e-10
"""Share of the momentum below which the way that is left does not count: after 218 steps."""
BETAS = (0.9, 0.999)
EPSILON = 1e-8
"""torch.optim.Adam's own values, which the published code leaves as they are."""


MOST_NODES = 12


def schedule_dtype(dtype: np.dtype) -> np.dtype:
    """What all rows share at a step t, in the precision of the tables."""
    fields = [
        ("rate", dtype),  # lr / (1 - b1^t)
        ("scale", dtype),  # 1 / sqrt(1 - b2^t)
        ("first", dtype),  # b1^t, zero beyond the horizon
        ("second", dtype),  # b2^t
        ("root", dtype),  # b2^(t / 2)
        ("count", np.int64),  # nodes of the way left from step t on
        ("nodes", dtype, MOST_NODES),
        ("weights", dtype, MOST_NODES),
    ]
    return np.dtype(fields, align=True)


def node_count(step: int) -> int:
    """Gauss nodes from a step on: early, the c_j lie further apart."""
    return MOST_NODES if step < 48 else 6 if step < 128 else 4


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
    """(T + 1,) the schedule of a training of at most T steps; step 0 comes before all."""
    b1, b2 = BETAS
    t = np.arange(steps + 1, dtype=np.float64)
    schedule = np.zeros(len(t), schedule_dtype(dtype))
    schedule["rate"][1:] = learning_rate / (1 - b1 ** t[1:])
    schedule["scale"][1:] = 1 / np.sqrt(1 - b2 ** t[1:])
    schedule["first"] = np.where(t > HORIZON, 0, b1**t)
    schedule["second"], schedule["root"] = b2**t, b2 ** (t / 2)
    count = np.array([node_count(int(step)) for step in t])
    schedule["count"] = count
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
