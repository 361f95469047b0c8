"""Retrieval and learned attention: which behaviours a model or a baseline retrieves, the NDCG of that ranking (paper,
4.3, figure 9, appendix E.4), and the attention a model has learned, beside the relevance in the log (figure 8)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.special import rel_entr, softmax
from scipy.stats import rankdata
from torch import Tensor

from dare_core.data.samples import Batch, Samples
from dare_core.evaluation.metrics import Array
from dare_core.models.attention import LearnedScore
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import SIDES, Role, Rows
from dare_core.models.results import SearchResult
from dare_core.models.search import same_category

HISTORIES = 512
"""Histories that are computed at once."""
NOT_RETRIEVED = -1
RULES = ("same category, then newest", "newest", "random")
"""Baselines that retrieve without learning."""


@dataclass(frozen=True)
class Retrieval:
    """Behaviours retrieved for C candidates of H histories, and the share of attention on recent ones."""

    order: np.ndarray  # (H, C, K) columns of the history by falling score; -1 where fewer are retrieved
    recent_other: np.ndarray  # (H, C) attention on recent behaviours of another category, NaN for rules


def needs_items(model: ClickModel) -> bool:
    """Whether the score is not a sum over fields, so that items cannot be left out of it (DIN)."""
    return isinstance(model.score, LearnedScore)


def attention_vectors(used: Mapping[Role, Rows], items: bool) -> tuple[Rows, Rows]:
    """Attention vectors of targets and of behaviours, their item fields zero without `items`."""
    both = used["attention", "target"], used["attention", "behaviour"]
    target, behaviour = both if items else (rows | {"item": torch.zeros_like(rows["item"])} for rows in both)
    return target, behaviour


@torch.no_grad()
def search(model: ClickModel, batch: Batch, items: bool) -> SearchResult:
    """What the model's search gives for a batch.

    Without `items` the item fields of its attention vectors are zero, as the published analysis leaves them
    out: search then goes by category and position. DIN's score and the own tables of SIM (soft) keep theirs.
    """
    target, behaviour = attention_vectors(model.embeddings(batch).used, items or needs_items(model))
    return model.search(model.score(target, behaviour), target, behaviour, batch)  # type: ignore[no-any-return]


def blocks(samples: Samples) -> Iterator[Batch]:
    """All samples, `HISTORIES` at a time."""
    return (samples.batch(slice(at, at + HISTORIES)) for at in range(0, len(samples), HISTORIES))


def first_columns(keys: Tensor, kept: Tensor, top_k: int) -> np.ndarray:
    """(..., K) columns of the highest keys among those kept; -1 where there are fewer than K."""
    best = keys.masked_fill(~kept, -torch.inf).topk(min(top_k, keys.shape[-1]), -1)
    return torch.where(best.values > -torch.inf, best.indices, NOT_RETRIEVED).to(torch.int32).numpy()


def retrieve(model: ClickModel, samples: Samples, top_k: int, recent: int = 10, items: bool = False) -> Retrieval:
    """Behaviours that a model retrieves, by falling score, with its own search (see `search` for `items`).

    `recent_other` is the share of the attention weight (softmax over the retrieved) on behaviours at the `recent`
    newest positions that are not of the candidate's category. The model must be in evaluation mode.
    """
    orders, shares = [], []
    for batch in blocks(samples):
        found = search(model, batch, items)
        orders.append(first_columns(found.scores, found.retrieved, top_k))
        other = ~same_category(batch)[..., -recent:]
        total = found.weights.sum(-1)
        shares.append(((found.weights[..., -recent:] * other).sum(-1) / total).numpy())
    return Retrieval(np.concatenate(orders), np.concatenate(shares).astype(np.float64))


def retrieve_by_rule(rule: str, samples: Samples, top_k: int, seed: int = 0) -> Retrieval:
    """Behaviours that one of the baselines `RULES` retrieves; `seed` is that of "random"."""
    generator = torch.Generator().manual_seed(seed)
    orders = []
    for batch in blocks(samples):
        same = same_category(batch)
        keys = newest = torch.arange(same.shape[-1], dtype=torch.float32).expand(same.shape)
        if rule == "random":
            keys = torch.rand(same.shape, generator=generator)
        elif rule == "same category, then newest":
            keys = newest + same.shape[-1] * same
        orders.append(first_columns(keys, batch.valid.unsqueeze(1).expand_as(same), top_k))
    order = np.concatenate(orders)
    return Retrieval(order, np.full(order.shape[:2], np.nan))


def same_category_counts(samples: Samples) -> np.ndarray:
    """(H, C) behaviours of each candidate's category in its history."""
    return np.concatenate([same_category(batch).sum(-1).numpy() for batch in blocks(samples)])


def left_out_share(order: np.ndarray, samples: Samples) -> Array:
    """(H, C) share of the behaviours of the candidate's category that are not retrieved although there was room.

    Of m such behaviours min(m, K) have room, with K the number that can be retrieved. NaN where there are none. The
    rule "same category, then newest" has 0.
    """
    shares = []
    for at, batch in enumerate(blocks(samples)):
        part, same = order[at * HISTORIES :][: len(batch.target_items)], same_category(batch).numpy()
        taken = (np.take_along_axis(same, np.maximum(part, 0), -1) & (part != NOT_RETRIEVED)).sum(-1)
        room = np.minimum(same.sum(-1), order.shape[-1])
        with np.errstate(invalid="ignore"):
            shares.append(np.maximum(room - taken, 0) / room)
    return np.concatenate(shares)


def ndcg(gains: np.ndarray, order: np.ndarray, ideal_at_end: bool = False) -> Array:
    """Normalised discounted cumulative gain at k = 1..K (Järvelin & Kekäläinen 2002), discount 1 / log2(rank + 1).

    Parameters
    ----------
    gains : (n, N) of every behaviour, none negative.
    order : (n, K) columns of the retrieved behaviours by falling score, -1 for none.
    ideal_at_end : compare with the K highest gains at every k, as published, instead of with the k highest.

    Returns
    -------
    (n, K) between 0 and 1; NaN where all gains are 0.

    >>> ndcg(np.array([[3.0, 0.0, 1.0]]), np.array([[0, 2]])).tolist()
    [[1.0, 1.0]]
    """
    k = order.shape[1]
    discount = 1 / np.log2(np.arange(2, k + 2))
    taken = np.take_along_axis(gains, np.maximum(order, 0), 1) * (order != NOT_RETRIEVED)
    best = np.sort(np.partition(gains, gains.shape[1] - k, 1)[:, -k:], 1)[:, ::-1]
    ideal = np.cumsum(best * discount, 1)
    if ideal_at_end:
        ideal = ideal[:, -1:]
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(best[:, :1] > 0, np.cumsum(taken * discount, 1) / ideal, np.nan)


def candidate_ndcg(gains: np.ndarray, order: np.ndarray, judged: np.ndarray, ideal_at_end: bool = False) -> Array:
    """(H, C, K) `ndcg` of gains (H, C, N) and order (H, C, K); NaN for candidates that are not judged."""
    values = np.full(order.shape, np.nan)
    values[judged] = ndcg(gains[judged], order[judged], ideal_at_end)
    return values


def retrieved_mask(order: np.ndarray, length: int) -> np.ndarray:
    """(..., N) true for the retrieved columns."""
    mask = np.zeros((*order.shape[:-1], length + 1), bool)  # the last column takes those that are not there
    np.put_along_axis(mask, np.where(order == NOT_RETRIEVED, length, order), True, -1)
    return mask[..., :length]


def best_columns(gains: np.ndarray, top_k: int) -> np.ndarray:
    """(..., N) true for the K behaviours of highest gain, among those that have any."""
    kept = torch.from_numpy(gains > 0)
    return retrieved_mask(first_columns(torch.from_numpy(gains), kept, top_k), gains.shape[-1])


def jaccard(first: np.ndarray, second: np.ndarray) -> Array:
    """(...,) size of the intersection over that of the union of two sets (..., N); 1 where both are empty.

    >>> float(jaccard(np.array([True, True, False]), np.array([False, True, True]))) == 1 / 3
    True
    """
    either = (first | second).sum(-1)
    return np.where(either > 0, (first & second).sum(-1) / np.maximum(either, 1), 1.0)


def mean_items(item_category: np.ndarray, clicks: np.ndarray, categories: np.ndarray) -> csr_matrix:
    """(T, items + 1) weights of each category's items, by their clicks: rows sum to 1 (0 where there are none)."""
    place = np.full(int(max(item_category.max(), categories.max())) + 1, -1)
    place[categories] = np.arange(len(categories))
    item = np.flatnonzero((place[item_category] >= 0) & (clicks > 0))
    row = place[item_category[item]]
    total = np.bincount(row, clicks[item], len(categories))
    return csr_matrix((clicks[item] / total[row], (row, item)), (len(categories), len(item_category)))


@torch.no_grad()
def learned_attention(
    model: ClickModel, categories: np.ndarray, positions: int, items: csr_matrix | None = None
) -> Array:
    """(T, T, P) score of a behaviour of category b at position p (from 1) for a target of category c: [c, b, p-1].

    From category and position alone, as in the published analysis: the item fields are zero, after any projection. With
    `items` (T, items + 1), weights of each category's items, they are the weighted mean item embedding instead; DIN's
    score needs them. A score without position is the same at every position.
    """
    t, ids = len(categories), torch.from_numpy(np.asarray(categories)).long()
    rows: dict[Role, Rows] = {}
    for side in SIDES:
        role: Role = ("attention", side)
        item = model.embeddings.table(role, "item")
        mean = torch.zeros(t, item.shape[1])
        if items is not None:
            mean = torch.from_numpy(items @ item.numpy()).to(item.dtype)
        fields = {"item": mean, "category": model.embeddings.table(role, "category")[ids]}
        # Each behaviour category is a history of its own, which holds nothing else at any position.
        if side == "target":
            rows[role] = {field: values.expand(t, t, -1) for field, values in fields.items()}
        else:
            rows[role] = {field: values.unsqueeze(1).expand(t, positions, -1) for field, values in fields.items()}
        if "position" in model.embeddings.fields:
            places = slice(1) if side == "target" else slice(1, positions + 1)
            rows[role]["position"] = model.embeddings.table(role, "position")[places]
    used = model.embeddings.maps(rows) if model.embeddings.maps is not None else rows
    target, behaviour = attention_vectors(used, items is not None)
    scores = model.score(target, behaviour)  # (b, c, p)
    return scores.transpose(0, 1).double().numpy()


def map_of(
    model: ClickModel, categories: np.ndarray, positions: int, items: csr_matrix, with_items: bool = False
) -> Array:
    """`learned_attention`, with mean items where asked for and where the score needs them."""
    return learned_attention(model, categories, positions, items if with_items or needs_items(model) else None)


def rank_correlation(first: Array, second: Array) -> Array:
    """(T,) Spearman's rank correlation over (b, p) of two arrays (T, T, P), ties at their mean rank; NaN where
    one of them is constant."""
    ranks = [rankdata(values.reshape(len(values), -1), axis=1) for values in (first, second)]
    a, b = (r - r.mean(1, keepdims=True) for r in ranks)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def divergence(relevance: Array, scores: Array) -> Array:
    """(T,) Jensen-Shannon divergence in bits, over (b, p), of relevance (T, T, P) brought to a sum of 1 and the
    softmax of the scores; 0 where they agree, at most 1, NaN where there is no relevance."""
    flat = relevance.reshape(len(relevance), -1)
    with np.errstate(invalid="ignore"):
        first = flat / flat.sum(1, keepdims=True)
    second = softmax(scores.reshape(len(scores), -1), 1)
    middle = (first + second) / 2
    nats = (rel_entr(first, middle) + rel_entr(second, middle)).sum(1) / 2
    return np.maximum(nats, 0) / np.log(2)


def symmetry(relevance: Array) -> float:
    """Spearman's rank correlation of relevance (T, T) with its transpose, over all ordered pairs of two
    different categories."""
    off = ~np.eye(len(relevance), dtype=bool)
    return float(rank_correlation(relevance[off][None, None], relevance.T[off][None, None])[0])


def own_first(relevance: Array) -> float:
    """Share of target categories whose most relevant behaviour category is their own; by chance 1 / T."""
    return float((relevance.argmax(1) == np.arange(len(relevance))).mean())


def mean_known(values: Array) -> float:
    """Mean of the finite values; NaN where none is finite."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
