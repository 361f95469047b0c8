"""Scores of attention, and search by them: who is retrieved, with what weight."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.models.embeddings import Rows, Sizes, Tables
from dare_core.models.kernels.selection import PADDING_SCORE, attend, best, scaled_products
from dare_core.models.projections import concatenated

__all__ = ["PADDING_SCORE", "attend", "best"]

Score = Callable[[Rows, Rows], Tensor]
"""Scores (H, C, N) of H histories, C targets each, N behaviours, from the rows of both."""


class ScaledDotProduct(nn.Module):
    """Field-wise scaled dot product, the score of TWIN and DARE.

    (<q_item, k_item> + <q_category, k_category>) / sqrt(2 d) + <q_position, k_position> / sqrt(d): content
    and position are scaled apart, as the published code does (the paper's equation has one sqrt(d)).
    With `position_twice`, as that code scores in hard search, the first part is <q, k> / sqrt(3 d) over all
    three fields.
    """

    def __init__(self, position_twice: bool = False) -> None:
        super().__init__()
        self.position_twice = position_twice

    def scales(self, sizes: Sizes) -> dict[str, float]:
        """The factor of each field's product, from the embedding sizes by field."""
        first = list(sizes) if self.position_twice else ["item", "category"]
        scale = sum(sizes[field] for field in first) ** -0.5
        scales = {"item": scale, "category": scale}
        if "position" in sizes:
            scales["position"] = sizes["position"] ** -0.5 + scale * self.position_twice
        return scales

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        scales = self.scales({field: rows.shape[-1] for field, rows in target.items()})
        sides = ([rows[field] for field in scales] for rows in (target, behaviour))
        return scaled_products(tuple(scales.values()), *sides)


class SplitFromTheEnd(nn.Module):
    """The published score where its split between content and position is not at the position's own size.

    The vectors of all fields are concatenated; the last `last` numbers are scaled by 1 / sqrt(last), what is
    before them by 1 / sqrt(its width): not a number where nothing is left (published code, "large
    embedding, small output" from d = 48 on). In hard search the first part takes the whole vector.
    """

    def __init__(self, last: int, position_twice: bool = False) -> None:
        super().__init__()
        self.last = last
        self.position_twice = position_twice

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        q, k = concatenated(target), concatenated(behaviour).transpose(-1, -2)
        first = q.shape[-1] if self.position_twice else max(q.shape[-1] - self.last, 0)
        content = q[..., :first] @ k[..., :first, :] / math.sqrt(first)
        return content + q[..., -self.last :] @ k[..., -self.last :, :] / math.sqrt(self.last)


@dataclass(frozen=True)
class Found:
    """What a search gives. Weights are zero where not retrieved; padding has none."""

    scores: Tensor  # (H, C, N), before softmax
    weights: Tensor  # (H, C, N), of the retrieved behaviours: the main head pools with them
    retrieved: Tensor  # (H, C, N) true for the retrieved behaviours, whose weight may be too small for a number
    considered: Tensor  # (H, C, N) true for who takes part in attention over the whole history
    whole: Tensor | None = None  # (H, C, N) weights of the auxiliary head, if not the softmax over `considered`
    own: tuple[Rows, Rows] | None = None  # target and behaviour rows of the auxiliary head, if not the model's


class Search(Protocol):
    """Who is retrieved, with what weight."""

    def __call__(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        """Search with the attention vectors of targets and behaviours; see `Found`."""
        ...


class TopK(nn.Module):
    """Soft search: the K behaviours of highest score.

    Padding is never retrieved, unless `retrieve_padding` asks for what the published code does: with fewer
    than K behaviours it fills up with padding, which then takes part with its real score.
    """

    def __init__(self, top_k: int, retrieve_padding: bool = False) -> None:
        super().__init__()
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding

    def retrieved(self, scores: Tensor, batch: Batch) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        return best(scores.detach(), batch.valid.unsqueeze(1), self.top_k, self.retrieve_padding)

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        scores = score(target, behaviour)
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        keep = self.retrieved(scores, batch)
        return Found(scores, attend(scores, keep), keep, valid)


class SameCategory(nn.Module):
    """Hard search: the K newest behaviours of the target's category, filled up with the newest others.

    With `whole_history` the auxiliary head still attends to every behaviour, as a search unit apart would
    leave it (SIM); without, only to the retrieved ones (the published code's hard search).
    """

    def __init__(self, top_k: int, retrieve_padding: bool = False, whole_history: bool = False) -> None:
        super().__init__()
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding
        self.whole_history = whole_history

    def retrieved(self, batch: Batch) -> Tensor:
        """(H, C, N) true for the retrieved behaviours."""
        valid = batch.valid.unsqueeze(1)
        same = (batch.target_categories.unsqueeze(-1) == batch.history_categories.unsqueeze(1)) & valid
        length = same.shape[-1]
        column = torch.arange(length, device=same.device)  # newest last
        # Padding is left of all behaviours, so it comes last by itself, its newest columns first.
        keep = best((column + length * same).float(), torch.ones_like(valid), self.top_k, True)
        return keep if self.retrieve_padding else keep & valid

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        scores = score(target, behaviour)
        keep = self.retrieved(batch)
        considered = batch.valid.unsqueeze(1).expand_as(keep) if self.whole_history else keep
        return Found(scores, attend(scores, keep), keep, considered)


class OwnTables(nn.Module):
    """SIM's soft search: inner product in embeddings of its own (Pi et al. 2020, section 3.1).

    The search unit has its own tables, trained by a click loss of its own: the auxiliary head, which pools
    *these* embeddings over the whole history. SIM trains that unit before or beside the other in the same
    way, but pools with the inner products themselves, where we take their softmax, as everywhere here. The
    modelling unit then attends to the retrieved behaviours with the model's score and tables.
    """

    def __init__(self, tables: Tables, top_k: int, retrieve_padding: bool = False) -> None:
        super().__init__()
        self.tables = tables
        self.top_k = top_k
        self.retrieve_padding = retrieve_padding

    def forward(self, score: Score, target: Rows, behaviour: Rows, batch: Batch) -> Found:
        rows = self.tables(batch)
        own = rows["target"], rows["behaviour"]
        ranking = ScaledDotProduct()(*own)
        scores = score(target, behaviour)
        valid = batch.valid.unsqueeze(1)
        keep = best(ranking.detach(), valid, self.top_k, self.retrieve_padding)
        valid = valid.expand_as(scores)
        return Found(scores, attend(scores, keep), keep, valid, attend(ranking, valid), own)
