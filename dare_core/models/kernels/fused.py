"""Tables, search and pooling of a training step in one compiled pass each way.

A small batch costs as much for the many nodes of PyTorch's graph as for what they compute. Where attention is a
scaled dot product and search takes the K best (TWIN, DARE, TWIN-4E, their ablations, maps field by field), all from
the rows of the tables to the pooled histories is one node: rows are gathered once per history, and their gradients
are added where they belong. It computes what the parts compute one by one (`tests/test_fused.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor

from dare_core.data.samples import Batch
from dare_core.models.embeddings import ROLES, EmbeddingScheme, Role, Sizes
from dare_core.models.kernels.autograd import first_derivative_only
from dare_core.models.projections import FieldMaps

FAST = {"reassoc", "contract", "nsz"}
"""Sums of products in any order, as vector instructions take them."""


@numba.njit(cache=True, fastmath=FAST)
def gather(items, categories, item_rows, category_rows, out):  # type: ignore[no-untyped-def]
    """Rows (M, D) of one history's ids side by side: item, category; what follows in `out` is left as it is."""
    first, second = items.shape[1], categories.shape[1]
    for m in range(len(item_rows)):
        item, category = item_rows[m], category_rows[m]
        for k in range(first):
            out[m, k] = items[item, k]
        for k in range(second):
            out[m, first + k] = categories[category, k]


@numba.njit(cache=True, fastmath=FAST)
def scatter(gradient, item_rows, category_rows, items, categories):  # type: ignore[no-untyped-def]
    """Add the gradients (M, D) of `gather` to those of its leaves."""
    first, second = items.shape[1], categories.shape[1]
    for m in range(len(item_rows)):
        item, category = item_rows[m], category_rows[m]
        for k in range(first):
            items[item, k] += gradient[m, k]
        for k in range(second):
            categories[category, k] += gradient[m, first + k]


@numba.njit(cache=True, fastmath=FAST)
def positions(leaf, first, out):  # type: ignore[no-untyped-def]
    """Fill the last columns of `out` (N, D) with the rows of positions N, N - 1, ..., 1; the leaf begins at `first`."""
    start = out.shape[1] - leaf.shape[1]
    for n in range(len(out)):
        for k in range(leaf.shape[1]):
            out[n, start + k] = leaf[len(out) - n - first, k]


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


@numba.njit(cache=True, fastmath=FAST)
def softmax(scores, keep, weights):  # type: ignore[no-untyped-def]
    """weights (N,) = softmax of the kept scores; zero elsewhere."""
    most = -np.inf
    for n in range(len(scores)):
        if keep[n] and scores[n] > most:
            most = scores[n]
    highest, total = scores.dtype.type(most), scores.dtype.type(0)
    for n in range(len(scores)):
        if keep[n]:
            weights[n] = np.exp(scores[n] - highest)
            total += weights[n]
    if total > 0:
        for n in range(len(scores)):
            weights[n] /= total


@numba.njit(cache=True, fastmath=FAST)
def softmax_of(scores, columns, weights):  # type: ignore[no-untyped-def]
    """weights (N,) = softmax of the scores in some columns, the first of which is the highest."""
    total = scores.dtype.type(0)
    for column in columns:
        weights[column] = np.exp(scores[column] - scores[columns[0]])
        total += weights[column]
    for column in columns:
        weights[column] /= total


@numba.njit(cache=True, fastmath=FAST)
def forward(leaves, ids, position, firsts, scale, valid, best, counts, keep, scores, main, whole, v, pooled):  # type: ignore[no-untyped-def]
    """Scores, weights of the retrieved and of the whole history (H, C, N); targets v (H, C, W); histories pooled by
    both sets of weights, one after the other (H, 2 C, W); the retrieved columns `best` (H, C, K), of which `counts`
    (H, C) are filled, and their mask `keep` (H, C, N). `leaves`, `ids`: by role, in the order of `ROLES`."""
    histories, candidates, length = scores.shape
    q, k = np.empty((candidates, len(scale)), scores.dtype), np.empty((length, len(scale)), scores.dtype)
    r = np.empty((length, v.shape[2]), scores.dtype)
    if position:
        positions(leaves[1][2], firsts[1], k)
        positions(leaves[3][2], firsts[3], r)
        v[:, :, v.shape[2] - leaves[2][2].shape[1] :] = leaves[2][2][0]
    for h in range(histories):
        gather(leaves[0][0], leaves[0][1], ids[0][0][h], ids[0][1][h], q)
        if position:
            q[:, q.shape[1] - leaves[0][2].shape[1] :] = leaves[0][2][0]
        q *= scale
        gather(leaves[1][0], leaves[1][1], ids[1][0][h], ids[1][1][h], k)
        gather(leaves[2][0], leaves[2][1], ids[2][0][h], ids[2][1][h], v[h])
        gather(leaves[3][0], leaves[3][1], ids[3][0][h], ids[3][1][h], r)
        for c in range(candidates):
            for n in range(length):
                total = scores.dtype.type(0)
                for d in range(len(scale)):
                    total += q[c, d] * k[n, d]
                scores[h, c, n] = total
            counts[h, c] = find_best(scores[h, c], valid[h], best[h, c])
            softmax(scores[h, c], valid[h], whole[h, c])
            if counts[h, c]:
                softmax_of(scores[h, c], best[h, c, : counts[h, c]], main[h, c])
            for i in range(counts[h, c]):
                n = best[h, c, i]
                weight = main[h, c, n]
                keep[h, c, n] = True
                for d in range(r.shape[1]):
                    pooled[h, c, d] += weight * r[n, d]
            for n in range(length):
                weight = whole[h, c, n]
                for d in range(r.shape[1]):
                    pooled[h, candidates + c, d] += weight * r[n, d]


@numba.njit(cache=True, fastmath=FAST)
def backward(leaves, ids, position, firsts, scale, best, counts, main, whole, of_v, of_pooled, totals):  # type: ignore[no-untyped-def]
    """Add the gradients of the leaves to `totals`, by role, from those of v and of the pooled histories."""
    histories, candidates, length = main.shape
    q, k = np.empty((candidates, len(scale)), main.dtype), np.empty((length, len(scale)), main.dtype)
    r = np.empty((length, of_v.shape[2]), main.dtype)
    of_scores, slopes = np.empty(length, main.dtype), np.empty(best.shape[2], main.dtype)
    of_q, of_k, of_r = np.empty_like(q), np.empty_like(k), np.empty_like(r)
    if position:
        positions(leaves[1][2], firsts[1], k)
        positions(leaves[3][2], firsts[3], r)
    for h in range(histories):
        gather(leaves[0][0], leaves[0][1], ids[0][0][h], ids[0][1][h], q)
        if position:
            q[:, q.shape[1] - leaves[0][2].shape[1] :] = leaves[0][2][0]
        q *= scale
        gather(leaves[1][0], leaves[1][1], ids[1][0][h], ids[1][1][h], k)
        gather(leaves[3][0], leaves[3][1], ids[3][0][h], ids[3][1][h], r)
        of_q[:], of_k[:], of_r[:] = 0, 0, 0
        for c in range(candidates):
            total = main.dtype.type(0)
            for n in range(length):
                weight = whole[h, c, n]
                slope = main.dtype.type(0)
                for d in range(r.shape[1]):
                    slope += of_pooled[h, candidates + c, d] * r[n, d]
                for d in range(r.shape[1]):
                    of_r[n, d] += weight * of_pooled[h, candidates + c, d]
                of_scores[n] = slope
                total += slope * weight
            for n in range(length):
                of_scores[n] = whole[h, c, n] * (of_scores[n] - total)
            total = main.dtype.type(0)
            for i in range(counts[h, c]):
                n = best[h, c, i]
                slopes[i] = 0
                for d in range(r.shape[1]):
                    slopes[i] += of_pooled[h, c, d] * r[n, d]
                for d in range(r.shape[1]):
                    of_r[n, d] += main[h, c, n] * of_pooled[h, c, d]
                total += slopes[i] * main[h, c, n]
            for i in range(counts[h, c]):
                n = best[h, c, i]
                of_scores[n] += main[h, c, n] * (slopes[i] - total)
            for n in range(length):
                for d in range(len(scale)):
                    of_k[n, d] += of_scores[n] * q[c, d]
            for n in range(length):
                for d in range(len(scale)):
                    of_q[c, d] += of_scores[n] * k[n, d]
        of_q *= scale
        for role, gradient in ((0, of_q), (1, of_k), (2, of_v[h]), (3, of_r)):
            scatter(gradient, ids[role][0][h], ids[role][1][h], totals[role][0], totals[role][1])
            if position:
                total_rows = totals[role][2]
                start = gradient.shape[1] - total_rows.shape[1]
                for n in range(len(gradient)):
                    row = len(gradient) - n - firsts[role] if role % 2 else 0
                    for d in range(total_rows.shape[1]):
                        total_rows[row, d] += gradient[n, start + d]


@dataclass
class Plan:
    """What one pass needs besides the leaves."""

    roles: list[list[int]]  # of each role, by field: which leaf
    ids: tuple[tuple[np.ndarray, ...], ...]  # of each role: items, categories
    position: bool
    firsts: tuple[int, ...]  # of each role, the first position that its leaf holds
    scale: np.ndarray  # (D,) of each number of the attention vectors
    valid: np.ndarray
    top_k: int


class _Fused(torch.autograd.Function):
    """From leaves to v and pooled histories; scores and weights are given beside, without a gradient."""

    @staticmethod
    def forward(ctx: Any, plan: Plan, *leaves: Tensor) -> tuple[Tensor, ...]:
        arrays = [leaf.detach().numpy() for leaf in leaves]
        by_role = tuple(tuple(arrays[at] for at in role) for role in plan.roles)
        shape = (*plan.ids[0][0].shape, plan.valid.shape[1])  # (H, C, N)
        width = sum(leaf.shape[1] for leaf in by_role[2])
        kind = arrays[0].dtype
        scores, main, whole = np.empty(shape, kind), np.zeros(shape, kind), np.zeros(shape, kind)
        best, counts = np.empty((*shape[:2], min(plan.top_k, shape[2])), np.int64), np.empty(shape[:2], np.int64)
        v, pooled = np.empty((*shape[:2], width), kind), np.zeros((shape[0], 2 * shape[1], width), kind)
        fixed = (by_role, plan.ids, plan.position, plan.firsts, plan.scale)
        keep = np.zeros(shape, bool)
        forward(*fixed, plan.valid, best, counts, keep, scores, main, whole, v, pooled)
        ctx.plan, ctx.arrays, ctx.found = plan, arrays, (*fixed, best, counts, main, whole)
        beside = [torch.from_numpy(array) for array in (scores, main, keep)]
        ctx.mark_non_differentiable(*beside)
        return torch.from_numpy(v), torch.from_numpy(pooled), *beside

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, of_v: Tensor, of_pooled: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        plan = ctx.plan
        totals = [np.zeros_like(array) for array in ctx.arrays]
        by_role = tuple(tuple(totals[at] for at in role) for role in plan.roles)
        given = (gradient.contiguous().numpy() for gradient in (of_v, of_pooled))
        backward(*ctx.found, *given, by_role)  # type: ignore[call-arg]
        return None, *(torch.from_numpy(total) for total in totals)


def can_fuse(embeddings: EmbeddingScheme) -> bool:
    """Whether an embedding scheme reads rows and maps them field by field at most."""
    plain = embeddings.maps is None or isinstance(embeddings.maps, FieldMaps)
    return plain and not embeddings.equalised and embeddings.fields[:2] == ("item", "category")


def map_name(embeddings: EmbeddingScheme, role: Role, field: str) -> str:
    """Name of the map of a role and field; empty where its rows are read as they are."""
    maps = embeddings.maps
    return maps.name(role, field) if isinstance(maps, FieldMaps) and field in maps.mapped else ""


def mapped_leaf(embeddings: EmbeddingScheme, role: Role, field: str) -> Tensor:
    """The rows that a role reads of a field. A map is applied to the rows of the table that a batch reads, each once,
    and not at every place where one is read."""
    leaf = embeddings.tables(role).leaf(field)
    if name := map_name(embeddings, role, field):
        assert isinstance(embeddings.maps, FieldMaps)
        return embeddings.maps.layers[name](leaf)  # type: ignore[no-any-return]
    return leaf


def fused(
    embeddings: EmbeddingScheme, batch: Batch, scales: Callable[[Sizes], dict[str, float]], top_k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Targets v (H, C, W), histories pooled over the retrieved and over all (H, 2 C, W), scores, weights, and the mask
    of what is retrieved (H, C, N). `scales` gives the factor of each field's product from the embedding sizes."""
    leaves: list[Tensor] = []
    numbers: dict[tuple[str, str, str], int] = {}
    roles: list[list[int]] = []
    ids: list[tuple[np.ndarray, ...]] = []
    firsts: list[int] = []
    for role in ROLES:
        tables, side = embeddings.tables(role), role[1]
        own = []
        for field in embeddings.fields:
            key = embeddings.assignment[role], field, map_name(embeddings, role, field)
            if key not in numbers:
                numbers[key] = len(leaves)
                leaves.append(mapped_leaf(embeddings, role, field))
            own.append(numbers[key])
        roles.append(own)
        read = tables.ids(batch, side) | {field: excerpt.ranks[side] for field, excerpt in tables.excerpts.items()}
        firsts.append(int(tables.excerpts["position"].rows[0]) if "position" in tables.excerpts else 0)
        ids.append((read["item"].numpy(), read["category"].numpy()))
    sizes = {field: leaves[at].shape[1] for field, at in zip(embeddings.fields, roles[0], strict=True)}
    factors = scales(sizes)
    scale = np.repeat([factors[field] for field in sizes], list(sizes.values()))
    scale = scale.astype(leaves[0].detach().numpy().dtype)
    plan = Plan(roles, tuple(ids), "position" in embeddings.fields, tuple(firsts), scale, batch.valid.numpy(), top_k)
    return _Fused.apply(plan, *leaves)  # type: ignore[no-any-return]
