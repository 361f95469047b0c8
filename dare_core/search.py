"""Search: the attention score of every behaviour, and who is retrieved."""

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from dare_core.embeddings import Batch, Rows

PADDING_SCORE = -(2.0**32) + 1
"""Score of padding before top-K, as in the published code."""


class ScaledDotProduct(nn.Module):
    """Field-wise scaled dot product, the score of TWIN and DARE.

    (<q_item, k_item> + <q_category, k_category>) / sqrt(2 d) + <q_position, k_position> / sqrt(d): content
    and position are scaled apart, as the published code does (the paper's equation has one sqrt(d)).
    """

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N) of H histories, C targets each, N behaviours."""
        content = math.sqrt(target["item"].shape[-1] + target["category"].shape[-1])
        scores = torch.matmul(target["item"] / content, behaviour["item"].transpose(-1, -2))
        scores = scores + torch.matmul(target["category"] / content, behaviour["category"].transpose(-1, -2))
        if "position" in target:
            # One score a position serves the whole batch.
            position = target["position"] @ behaviour["position"].transpose(-1, -2)
            scores = scores + position / math.sqrt(target["position"].shape[-1])
        return scores


class LearnedScore(nn.Module):
    """DIN's score: an MLP of [q, k, q - k, q * k] -> 36 -> 1, divided by the width of q (DIN, 2018).

    The first layer is linear, so its parts for q and for k are computed once a target and once a
    behaviour; only q * k is particular to a pair, and is a product of matrices too.
    """

    def __init__(self, width: int, hidden: int = 36) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * width, hidden)
        self.activation = nn.PReLU()
        self.out = nn.Linear(hidden, 1)

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N); item and category only."""
        q = torch.cat([target["item"], target["category"]], -1)  # (H, C, D)
        k = torch.cat([behaviour["item"], behaviour["category"]], -1)  # (H, N, D)
        of_q, of_k, of_difference, of_product = self.hidden.weight.chunk(4, 1)  # (36, D) each
        by_target = q @ (of_q + of_difference).T + self.hidden.bias  # (H, C, 36)
        by_behaviour = k @ (of_k - of_difference).T  # (H, N, 36)
        pair = (q.unsqueeze(2) * of_product).flatten(1, 2)  # (H, C * 36, D)
        by_pair = (k @ pair.transpose(1, 2)).unflatten(2, (q.shape[1], -1))  # (H, N, C, 36)
        hidden = by_pair + by_target.unsqueeze(1) + by_behaviour.unsqueeze(2)
        scores = self.out(self.activation(hidden)).squeeze(-1) / q.shape[-1]  # (H, N, C)
        return scores.transpose(1, 2)


class Search(Protocol):
    """Who is retrieved, with what weight."""

    def __call__(self, scores: Tensor, target: Rows, behaviour: Rows, batch: Batch) -> Tensor:
        """Weights (H, C, N), zero where not retrieved, each row summing to 1 (to 0 for an empty history)."""
        ...


def attend(scores: Tensor, keep: Tensor) -> Tensor:
    """Softmax of the scores (H, C, N) over the positions kept; zero elsewhere, and for rows that keep none."""
    weights = torch.softmax(scores.masked_fill(~keep, PADDING_SCORE), -1)
    return weights * keep


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
        valid = batch.valid.unsqueeze(1).expand_as(scores)
        ranked = scores.detach().masked_fill(~valid, PADDING_SCORE)
        best = ranked.topk(min(self.top_k, scores.shape[-1]), -1).indices
        keep = torch.zeros_like(valid).scatter(-1, best, True)
        return keep if self.retrieve_padding else keep & valid

    def forward(self, scores: Tensor, target: Rows, behaviour: Rows, batch: Batch) -> Tensor:
        return attend(scores, self.retrieved(scores, batch))
