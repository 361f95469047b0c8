"""Tables, search and pooling of a training step in one compiled pass each way.

A small batch costs as much for the many nodes of PyTorch's graph as for what they compute. Where attention is a
scaled dot product and search takes the K best (TWIN, DARE, TWIN-4E, their ablations, maps field by field), all from
the rows of the tables to the pooled histories is one node: rows are gathered once per history, and their gradients
are added where they belong. It computes what the parts compute one by one (`tests/test_fused.py`).
"""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from dare_core.data.samples import Batch
from dare_core.models.embeddings import ROLES, EmbeddingScheme, Role, Vectors
from dare_core.models.kernels.lookup import first_derivative_only
from dare_core.models.projections import FieldMaps
from dare_core.models.results import PooledHistory, SearchResult

# Inner loops run over the last axis and sums are taken in a fixed order: several numbers are computed at once, and
# each compilation gives the same ones.


@numba.njit(cache=True)
def read(leaves, ids, rows):  # type: ignore[no-untyped-def]
    """Fill `rows` (M, D) with those of ids (M,) of the first fields side by side, as many fields as `ids` has."""
    start = 0
    for field in range(len(ids)):
        leaf = leaves[field]
        for m in range(len(rows)):
            row = ids[field][m]
            for k in range(leaf.shape[1]):
                rows[m, start + k] = leaf[row, k]
        start += leaf.shape[1]


@numba.njit(cache=True)
def read_places(leaf, places, rows):  # type: ignore[no-untyped-def]
    """Fill the last columns of `rows` (M, D) with the rows `places` (M,) of the position table."""
    start = rows.shape[1] - leaf.shape[1]
    for m in range(len(rows)):
        for k in range(leaf.shape[1]):
            rows[m, start + k] = leaf[places[m], k]


@numba.njit(cache=True)
def add(leaves, ids, gradient):  # type: ignore[no-untyped-def]
    """Add the gradients (M, D) of rows to those of the leaves, field by field."""
    start = 0
    for field in range(len(ids)):
        leaf = leaves[field]
        for m in range(len(gradient)):
            row = ids[field][m]
            for k in range(leaf.shape[1]):
                leaf[row, k] += gradient[m, start + k]
        start += leaf.shape[1]


@numba.njit(cache=True)
def products(rows, columns, out):  # type: ignore[no-untyped-def]
    """out (C, N) = rows (C, D) times columns (D, N)."""
    out[:] = 0
    for d in range(len(columns)):
        for c in range(len(rows)):
            factor = rows[c, d]
            for n in range(columns.shape[1]):
                out[c, n] += factor * columns[d, n]


@numba.njit(cache=True)
def sums(weights, rows, out):  # type: ignore[no-untyped-def]
    """out (C, D) = weights (C, N) times rows (N, D)."""
    fours = len(rows) // 4 * 4
    out[:] = 0
    for c in range(len(out)):
        for n in range(0, fours, 4):
            w0, w1, w2, w3 = weights[c, n], weights[c, n + 1], weights[c, n + 2], weights[c, n + 3]
            for d in range(rows.shape[1]):
                out[c, d] += w0 * rows[n, d] + w1 * rows[n + 1, d] + w2 * rows[n + 2, d] + w3 * rows[n + 3, d]
        for n in range(fours, len(rows)):
            for d in range(rows.shape[1]):
                out[c, d] += weights[c, n] * rows[n, d]


@numba.njit(cache=True)
def outer(weights, rows, out):  # type: ignore[no-untyped-def]
    """out (N, D) = the transposed weights (C, N) times rows (C, D)."""
    out[:] = 0
    for n in range(len(out)):
        for c in range(len(rows)):
            weight = weights[c, n]
            if weight != 0:  # most are not retrieved
                for d in range(rows.shape[1]):
                    out[n, d] += weight * rows[c, d]


@numba.njit(cache=True)
def find_best(scores, valid, best):  # type: ignore[no-untyped-def]
    """The columns of the highest valid scores, as many as `best` (K,) has room for, highest first, of equal ones the
    newest; returns how many were found."""
    found, top_k = 0, len(best)
    least = -np.inf
    for n in range(len(scores) - 1, -1, -1):
        if not valid[n] or (found == top_k and not scores[n] > least):
            continue
        at = found if found < top_k else top_k - 1
        while at > 0 and scores[n] > scores[best[at - 1]]:
            best[at] = best[at - 1]
            at -= 1
        best[at] = n
        found = min(found + 1, top_k)
        least = scores[best[found - 1]]
    return found


@numba.njit(cache=True)
def softmaxes(scores, valid, best, main, whole):  # type: ignore[no-untyped-def]
    """Softmax over the retrieved columns `best`, the first of which is the highest, and over all valid ones; (N,)."""
    total, total_whole = scores.dtype.type(0), scores.dtype.type(0)
    for n in range(len(scores)):
        if valid[n]:
            whole[n] = np.exp(scores[n] - scores[best[0]])
            total_whole += whole[n]
    for n in best:
        total += whole[n]
    for n in best:
        main[n] = whole[n] / total
    for n in range(len(scores)):
        whole[n] /= total_whole


@numba.njit(cache=True)
def add_softmax_gradient(weights, slopes, of_scores):  # type: ignore[no-untyped-def]
    """Add the gradients of scores (N,) from those of their softmax."""
    total = slopes.dtype.type(0)
    for n in range(len(weights)):
        total += slopes[n] * weights[n]
    for n in range(len(weights)):
        of_scores[n] += weights[n] * (slopes[n] - total)


@numba.njit(cache=True)
def forward(leaves, ids, places, scale, valid, top_k, keep, scores, weights, v, pooled):  # type: ignore[no-untyped-def]
    """Scores (H, C, N); the mask of the retrieved (H, C, N); weights of the retrieved, then of the whole history
    (H, 2 C, N); targets v (H, C, W); histories pooled by both sets of weights (H, 2 C, W). `leaves`, `ids`, `places`:
    by role, in the order of `ROLES`."""
    histories, candidates, length = scores.shape
    q, k = np.empty((candidates, len(scale)), v.dtype), np.empty((len(scale), length), v.dtype)
    r, best = np.empty((length, v.shape[2]), v.dtype), np.empty(min(top_k, length), np.int64)
    read_places(leaves[1][2], places[1], k.T)
    read_places(leaves[3][2], places[3], r)
    for h in range(histories):
        read(leaves[0], (ids[0][0][h], ids[0][1][h]), q)
        read_places(leaves[0][2], places[0], q)
        q *= scale
        read(leaves[1], (ids[1][0][h], ids[1][1][h]), k.T)
        read(leaves[2], (ids[2][0][h], ids[2][1][h]), v[h])
        read_places(leaves[2][2], places[2], v[h])
        read(leaves[3], (ids[3][0][h], ids[3][1][h]), r)
        products(q, k, scores[h])
        for c in range(candidates):
            found = find_best(scores[h, c], valid[h], best)
            for n in best[:found]:
                keep[h, c, n] = True
            if found:
                softmaxes(scores[h, c], valid[h], best[:found], weights[h, c], weights[h, candidates + c])
        sums(weights[h], r, pooled[h])


@numba.njit(cache=True)
def backward(leaves, ids, places, scale, weights, of_v, of_pooled, totals):  # type: ignore[no-untyped-def]
    """Add the gradients of the leaves to `totals`, by role, from those of v and of the pooled histories."""
    candidates, (histories, both, length), width = of_v.shape[1], weights.shape, of_v.shape[2]
    q, k = np.empty((candidates, len(scale)), of_v.dtype), np.empty((length, len(scale)), of_v.dtype)
    r, slopes = np.empty((width, length), of_v.dtype), np.empty((both, length), of_v.dtype)
    of_q, of_k, of_r = np.empty_like(q), np.empty_like(k), np.empty((length, width), of_v.dtype)
    of_scores = np.empty((candidates, length), of_v.dtype)
    read_places(leaves[1][2], places[1], k)
    read_places(leaves[3][2], places[3], r.T)
    for h in range(histories):
        read(leaves[0], (ids[0][0][h], ids[0][1][h]), q)
        read_places(leaves[0][2], places[0], q)
        q *= scale
        read(leaves[1], (ids[1][0][h], ids[1][1][h]), k)
        read(leaves[3], (ids[3][0][h], ids[3][1][h]), r.T)
        products(of_pooled[h], r, slopes)
        of_scores[:] = 0
        for c in range(both):
            add_softmax_gradient(weights[h, c], slopes[c], of_scores[c % candidates])
        outer(weights[h], of_pooled[h], of_r)
        outer(of_scores, q, of_k)
        sums(of_scores, k, of_q)
        of_q *= scale
        add(totals[0], (ids[0][0][h], ids[0][1][h], places[0]), of_q)
        add(totals[1], (ids[1][0][h], ids[1][1][h], places[1]), of_k)
        add(totals[2], (ids[2][0][h], ids[2][1][h], places[2]), of_v[h])
        add(totals[3], (ids[3][0][h], ids[3][1][h], places[3]), of_r)


@dataclass
class Plan:
    """Inputs of one pass besides the leaves."""

    roles: list[list[int]]  # of each role, by field: which leaf
    ids: tuple[tuple[np.ndarray, ...], ...]  # of each role: items, categories
    places: tuple[np.ndarray, ...]  # of each role: rows of its leaf of positions
    scale: np.ndarray  # (D,) of each number of the attention vectors
    valid: np.ndarray
    top_k: int


def three(arrays: list[np.ndarray], role: list[int]) -> tuple[np.ndarray, ...]:
    """The leaves of a role: item, category, position; without positions, these have no columns."""
    leaves = tuple(arrays[at] for at in role)
    return leaves if len(leaves) == 3 else (*leaves, np.empty((1, 0), arrays[0].dtype))


class _Fused(torch.autograd.Function):
    """From leaves to v and pooled histories; scores and weights are returned too, without a gradient."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *leaves: Tensor) -> tuple[Tensor, ...]:
        arrays = [leaf.detach().numpy() for leaf in leaves]
        by_role = tuple(three(arrays, role) for role in plan.roles)
        histories, candidates, length = *plan.ids[0][0].shape, plan.valid.shape[1]
        width, kind = sum(leaf.shape[1] for leaf in by_role[2]), arrays[0].dtype
        keep, scores = np.zeros((histories, candidates, length), bool), np.empty((histories, candidates, length), kind)
        weights = np.zeros((histories, 2 * candidates, length), kind)
        v, pooled = np.empty((histories, candidates, width), kind), np.zeros((histories, 2 * candidates, width), kind)
        given = (by_role, plan.ids, plan.places, plan.scale)
        forward(*given, plan.valid, plan.top_k, keep, scores, weights, v, pooled)
        ctx.plan, ctx.arrays, ctx.found = plan, arrays, (*given, weights)
        beside = [torch.from_numpy(array) for array in (scores, weights[:, :candidates], keep)]
        ctx.mark_non_differentiable(*beside)
        return torch.from_numpy(v), torch.from_numpy(pooled), *beside

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, of_v: Tensor, of_pooled: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        totals = [np.zeros_like(array) for array in ctx.arrays]
        by_role = tuple(three(totals, role) for role in ctx.plan.roles)
        given = (gradient.contiguous().numpy() for gradient in (of_v, of_pooled))
        backward(*ctx.found, *given, by_role)  # type: ignore[call-arg]
        return None, *(torch.from_numpy(total) for total in totals)


def can_fuse(embeddings: EmbeddingScheme) -> bool:
    """Whether a scheme reads rows, maps them field by field at most, and leaves the gradients of its roles together;
    on a CPU, in the tables' own precision."""
    plain = embeddings.maps is None or isinstance(embeddings.maps, FieldMaps)
    plain &= embeddings.table(ROLES[0], "item").device.type == "cpu" and not torch.is_autocast_enabled("cpu")
    return plain and not (embeddings.equalised or embeddings.apart) and embeddings.fields[:2] == ("item", "category")


def map_name(embeddings: EmbeddingScheme, role: Role, field: str) -> str:
    """Name of the map of a role and field; empty where its rows are read as they are."""
    maps = embeddings.maps
    return maps.name(role, field) if isinstance(maps, FieldMaps) and field in maps.mapped else ""


def make_plan(embeddings: EmbeddingScheme, batch: Batch, top_k: int) -> tuple[Plan, list[Tensor]]:
    """The inputs of one pass, and the leaves that it reads."""
    leaves: list[Tensor] = []
    numbers: dict[tuple[str, str, str], int] = {}
    roles: list[list[int]] = []
    ids: list[tuple[np.ndarray, ...]] = []
    places: list[np.ndarray] = []
    for role in ROLES:
        tables, side = embeddings.tables(role), role[1]
        own = []
        for field in embeddings.fields:
            key = _, _, name = embeddings.assignment[role], field, map_name(embeddings, role, field)
            if key not in numbers:
                numbers[key] = len(leaves)
                leaf = tables.leaf(field)  # mapped here, so each row once and not wherever it is read
                leaves.append(embeddings.maps.layers[name](leaf) if name else leaf)  # type: ignore[union-attr, operator, index]
            own.append(numbers[key])
        roles.append(own)
        found = tables.places(batch, side)
        ids.append((found["item"].numpy(), found["category"].numpy()))
        place = np.empty(ids[-1][0].shape[1], ids[-1][0].dtype)
        place[:] = found["position"].numpy()
        places.append(place)
    sizes = {field: leaves[at].shape[1] for field, at in zip(embeddings.fields, roles[0], strict=True)}
    content = (sizes["item"] + sizes["category"]) ** -0.5
    factors = [size**-0.5 if field == "position" else content for field, size in sizes.items()]  # of the dot product
    scale = np.repeat(factors, list(sizes.values())).astype(leaves[0].detach().numpy().dtype)
    return Plan(roles, tuple(ids), tuple(places), scale, batch.valid.numpy(), top_k), leaves


def pool_in_one_pass(embeddings: EmbeddingScheme, batch: Batch, top_k: int) -> PooledHistory:
    """What `ClickModel.pool` computes in training, without the vectors of each role."""
    plan, leaves = make_plan(embeddings, batch, top_k)
    v, both, scores, weights, retrieved = _Fused.apply(plan, *leaves)
    h, whole = both.split(v.shape[1], 1)  # (H, C, W) each: over the retrieved behaviours, over all
    found = SearchResult(scores, weights, retrieved, batch.valid.unsqueeze(1).expand_as(scores))
    return PooledHistory(v, h, (v, whole), found, Vectors({}, {}))
