"""Attention scores of the other models; the scaled dot product of TWIN and DARE is in `click_model`."""

import math

import torch
from torch import Tensor, nn

from dare_core.models.click_model import ScaledDotProduct, position_scores
from dare_core.models.embeddings import Rows, concatenated
from dare_core.models.kernels.autograd import plain_cpu
from dare_core.models.kernels.learned_score import scores_in_blocks


class LearnedScore(nn.Module):
    """DIN's score: an MLP of [q, k, q - k, q * k] -> 36 -> 1, divided by the width of q (Zhou et al. 2018).

    The first layer is linear in k for a given q, so the hidden units of all pairs come out of one product of the
    behaviours with a matrix made of the target.
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
        by_target = (q @ (of_q + of_difference).T + self.hidden.bias).flatten(1, 2)  # (H, C * 36)
        weights = (q.unsqueeze(2) * of_product + (of_k - of_difference)).flatten(1, 2)  # (H, C * 36, D)
        if plain_cpu(k):  # the lines below, block by block
            out = self.out.weight.squeeze(0)
            scores = scores_in_blocks(k, weights, by_target, self.activation.weight, out) + self.out.bias
        else:
            hidden = torch.baddbmm(by_target.unsqueeze(1), k, weights.transpose(1, 2))  # (H, N, C * 36)
            hidden = self.activation(hidden).unflatten(2, (-1, self.hidden.out_features))  # (H, N, C, 36)
            scores = self.out(hidden).squeeze(-1)  # (H, N, C)
        return scores.transpose(1, 2) / q.shape[-1]


class PositionTwice(ScaledDotProduct):
    """The published code's score in hard search: <q, k> / sqrt(3 d) over all three fields, and position once more."""

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        q, k = concatenated(target), concatenated(behaviour)
        return q @ k.mT / math.sqrt(q.shape[-1]) + position_scores(target, behaviour)


class SplitFromTheEnd(nn.Module):
    """The published score where its split between content and position is not at the position's own size.

    The vectors of all fields are concatenated; the last `last` numbers are scaled by 1 / sqrt(last), those before
    them by 1 / sqrt(their number): not a number where nothing is left (published code, "large embedding, small
    output" from d = 48 on). In hard search (`position_twice`) the first part takes the whole vector.
    """

    def __init__(self, last: int, position_twice: bool = False) -> None:
        super().__init__()
        self.last = last
        self.position_twice = position_twice

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        q, k = concatenated(target), concatenated(behaviour).mT
        first = q.shape[-1] if self.position_twice else max(q.shape[-1] - self.last, 0)
        content = q[..., :first] @ k[..., :first, :] / math.sqrt(first)
        return content + q[..., -self.last :] @ k[..., -self.last :, :] / math.sqrt(self.last)
