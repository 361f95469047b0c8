"""What the stages of a click model return; letters as in `click_model`, F features."""

from dataclasses import dataclass

import torch
from torch import Tensor

from dare_core.models.embeddings import Vectors

TINY = 1e-8
"""Added to probabilities, as in the published code."""


def full_precision(logits: Tensor) -> Tensor:
    """At least float32, as probabilities need it where the model computed with bfloat16."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


@dataclass(frozen=True)
class SearchResult:
    """Which behaviours are retrieved, and their attention weights; padding has none."""

    scores: Tensor  # (H, C, N), before softmax
    weights: Tensor  # (H, C, N), of the retrieved behaviours, 0 elsewhere: the main head pools with them
    retrieved: Tensor  # (H, C, N) true for the retrieved behaviours; their weight may underflow to 0
    considered: Tensor  # (H, C, N) true for the behaviours over which the auxiliary head pools
    auxiliary_weights: Tensor | None = None  # (H, C, N) of the auxiliary head, if not the softmax over `considered`
    auxiliary: tuple[Tensor, Tensor] | None = None  # v, h of the auxiliary head, if the search pools rows of its own


@dataclass(frozen=True)
class PooledHistory:
    """Representation of targets and of their histories, the inputs of the heads."""

    v: Tensor  # (H, C, 3 d) representation of the target
    h: Tensor  # (H, C, 3 d) of the history, pooled over the retrieved behaviours
    auxiliary: tuple[Tensor, Tensor] | None  # v and h of the auxiliary head: pooled over the whole history
    search: SearchResult
    vectors: Vectors


@dataclass(frozen=True)
class Output:
    """All that a forward pass computes; F features."""

    logits: Tensor  # (H, C, 2), click first
    auxiliary_logits: Tensor | None  # (H, C, 2), in training mode
    scores: Tensor  # (H, C, N), before softmax, padding included
    weights: Tensor  # (H, C, N), of the retrieved behaviours
    retrieved: Tensor  # (H, C, N) true for the retrieved behaviours
    considered: Tensor  # (H, C, N) true for the behaviours over which the auxiliary head pools
    features: Tensor  # (H, C, F), input of the main head
    vectors: Vectors

    @property
    def probability(self) -> Tensor:
        """(H, C) probability of a click; 1e-8 is added as in the published code."""
        return torch.softmax(full_precision(self.logits), -1)[..., 0] + TINY
