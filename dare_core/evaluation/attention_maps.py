"""What a model has learned to attend to, beside the relevance in the log (paper, 4.3 and 3.4, figure 8)."""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.special import rel_entr, softmax
from scipy.stats import rankdata

from dare_core.evaluation.metrics import Array
from dare_core.evaluation.retrieval import needs_items
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import SIDES, Role, Rows


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

    Category and position alone, as in the published analysis: the item fields are zero, behind any map. With
    `items` (T, items + 1), weights of each category's items, they are the weighted mean item embedding
    instead; DIN's score cannot do without. A score without position is the same at every one.
    """
    t = len(categories)
    ids = torch.from_numpy(np.asarray(categories)).long()
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
            table = model.embeddings.table(role, "position")
            rows[role]["position"] = table[:1] if side == "target" else table[1 : positions + 1]
    used = model.embeddings.maps(rows) if model.embeddings.maps is not None else rows
    target, behaviour = used["attention", "target"], used["attention", "behaviour"]
    if items is None:
        target = target | {"item": torch.zeros_like(target["item"])}
        behaviour = behaviour | {"item": torch.zeros_like(behaviour["item"])}
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
    """Mean of the values that are there; NaN where none is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")
