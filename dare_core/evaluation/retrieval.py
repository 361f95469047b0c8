"""Retrieval as it is judged: what a model or a rule retrieves, in which order, and how much of what
matters is among them (paper, 4.3, figure 9 and appendix E.4)."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dare_core.data.samples import Batch, Samples
from dare_core.evaluation.gains import GainRule, judged_gains
from dare_core.evaluation.metrics import Array
from dare_core.models.attention import LearnedScore
from dare_core.models.click_model import ClickModel
from dare_core.models.results import SearchResult

HISTORIES = 512
NOT_RETRIEVED = -1
RULES = ("same category, then newest", "newest", "random")


@dataclass(frozen=True)
class Retrieval:
    """What is retrieved for C candidates of H histories, and how attention is spread over it."""

    order: np.ndarray  # (H, C, K) columns of the history by falling score; -1 where fewer are retrieved
    recent_other: np.ndarray  # (H, C) attention on recent behaviours of another category, NaN for rules


def needs_items(model: ClickModel) -> bool:
    """Whether the score is not a sum over fields, so that items cannot be left out of it (DIN)."""
    return isinstance(model.score, LearnedScore)


@torch.no_grad()
def search(model: ClickModel, batch: Batch, items: bool) -> SearchResult:
    """What the model's search gives for a batch.

    Without `items` the item fields of its attention vectors are zero, as the published analysis leaves them
    out: search then goes by category and position. DIN's score and the own tables of SIM (soft) keep theirs.
    """
    used = model.embeddings(batch).used
    target, behaviour = used["attention", "target"], used["attention", "behaviour"]
    if not items and not needs_items(model):
        target = target | {"item": torch.zeros_like(target["item"])}
        behaviour = behaviour | {"item": torch.zeros_like(behaviour["item"])}
    return model.search(model.score(target, behaviour), target, behaviour, batch)  # type: ignore[no-any-return]


def first_columns(keys: Tensor, kept: Tensor, top_k: int) -> np.ndarray:
    """(..., K) columns of the highest keys among those kept; -1 where there are fewer than K."""
    best = keys.masked_fill(~kept, -torch.inf).topk(min(top_k, keys.shape[-1]), -1)
    return torch.where(best.values > -torch.inf, best.indices, NOT_RETRIEVED).to(torch.int32).numpy()


def same_category(batch: Batch) -> Tensor:
    """(H, C, N) true for behaviours of the candidate's category."""
    return (batch.target_categories.unsqueeze(-1) == batch.history_categories.unsqueeze(1)) & batch.valid.unsqueeze(1)


def retrieve(model: ClickModel, samples: Samples, top_k: int, recent: int = 10, items: bool = False) -> Retrieval:
    """What a model retrieves, by falling score, with its own search (see `search` for `items`).

    `recent_other` is the share of the attention weight (softmax over the retrieved) on behaviours that stand
    at the `recent` newest positions and are not of the candidate's category. The model is in evaluation mode.
    """
    orders, shares = [], []
    for at in range(0, len(samples), HISTORIES):
        batch = samples.batch(slice(at, at + HISTORIES))
        found = search(model, batch, items)
        orders.append(first_columns(found.scores, found.retrieved, top_k))
        other = ~same_category(batch)[..., -recent:]
        total = found.weights.sum(-1)
        shares.append(((found.weights[..., -recent:] * other).sum(-1) / total).numpy())
    return Retrieval(np.concatenate(orders), np.concatenate(shares).astype(np.float64))


def retrieve_by_rule(rule: str, samples: Samples, top_k: int, seed: int = 0) -> Retrieval:
    """What a rule without learning retrieves: see `RULES`."""
    generator = torch.Generator().manual_seed(seed)
    orders = []
    for at in range(0, len(samples), HISTORIES):
        batch = samples.batch(slice(at, at + HISTORIES))
        same = same_category(batch)
        newest = torch.arange(same.shape[-1], dtype=torch.float32).expand(same.shape)
        keys = newest
        if rule == "random":
            keys = torch.rand(same.shape, generator=generator)
        elif rule == "same category, then newest":
            keys = newest + same.shape[-1] * same
        orders.append(first_columns(keys, batch.valid.unsqueeze(1).expand_as(same), top_k))
    order = np.concatenate(orders)
    return Retrieval(order, np.full(order.shape[:2], np.nan))


def same_category_counts(samples: Samples) -> np.ndarray:
    """(H, C) behaviours of each candidate's category in its history."""
    blocks = range(0, len(samples), HISTORIES)
    return np.concatenate([same_category(samples.batch(slice(at, at + HISTORIES))).sum(-1).numpy() for at in blocks])


def left_out_share(order: np.ndarray, samples: Samples) -> Array:
    """(H, C) share of the behaviours of the candidate's category that are not retrieved although there was room.

    Of m such behaviours min(m, K) have room, with K the number that can be retrieved. NaN where there are none. The
    rule "same category, then newest" has 0.
    """
    shares = []
    for at in range(0, len(samples), HISTORIES):
        part = order[at : at + HISTORIES]
        same = same_category(samples.batch(slice(at, at + HISTORIES))).numpy()
        taken = (np.take_along_axis(same, np.maximum(part, 0), -1) & (part != NOT_RETRIEVED)).sum(-1)
        room = np.minimum(same.sum(-1), order.shape[-1])
        with np.errstate(invalid="ignore"):
            shares.append(np.maximum(room - taken, 0) / room)
    return np.concatenate(shares)


def ndcg(gains: np.ndarray, order: np.ndarray, ideal_at_end: bool = False) -> Array:
    """Normalised discounted cumulative gain at k = 1..K (Järvelin & Kekäläinen 2002), discount 1 / log2(rank + 1).

    Arguments: gains (n, N), none negative; order (n, K), columns by falling score, -1 for none. Returns
    (n, K). The ideal is the k highest gains; with `ideal_at_end`, as published, the K highest at every k.
    NaN where all gains are 0.
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


def mean_ndcg(
    train: Samples, test: Samples, order: np.ndarray, rule: GainRule, ideal_at_end: bool = False
) -> tuple[Array, int]:
    """Mean NDCG at 1..K (K,) of an order (H, C, K) over the test samples that are judged and have a gain, and how
    many these are. Gains come and go in chunks, so memory does not grow with the number of samples."""
    total, count = np.zeros(order.shape[-1]), 0
    for found, kept, gains in judged_gains(train, test, rule):
        values = ndcg(gains[kept], order[found.row, found.candidate][kept], ideal_at_end)
        known = ~np.isnan(values[:, -1])
        total += values[known].sum(0)
        count += int(known.sum())
    return total / max(count, 1), count


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
    """(...,) shared over all of two retrieved sets (..., N); 1 where both are empty."""
    either = (first | second).sum(-1)
    return np.where(either > 0, (first & second).sum(-1) / np.maximum(either, 1), 1.0)
