"""Attention scores of the other models; the scaled dot product of TWIN and DARE is in `click_model`."""

import math

import torch
from torch import Tensor, nn

from dare_core.models.click_model import ScaledDotProduct, position_scores
from dare_core.models.embeddings import Rows, concatenated

BLOCK = 2**17
"""Hidden units that are computed at a time: half a MiB in float32, which stays in the processor's cache."""


class LearnedScore(nn.Module):
    """DIN's score: an MLP of [q, k, q - k, q * k] -> 36 -> 1, divided by the width of q (Zhou et al. 2018).

    The first layer is linear in k for a given q, so the hidden units of all pairs come out of one product of the
    behaviours with a matrix made of the target. PReLU(x) = slope x + (1 - slope) max(x, 0), whose first part is linear
    in k to the end: only the second one needs the hidden units.
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
        constant = q @ (of_q + of_difference).T + self.hidden.bias  # (H, C, 36)
        matrix = q.unsqueeze(2) * of_product + (of_k - of_difference)  # (H, C, 36, D)
        out, slope = self.out.weight.squeeze(0), self.activation.weight  # (36,), (1,)
        linear = (out @ matrix) @ k.mT + (constant @ out).unsqueeze(-1)  # (H, C, N)
        above = []  # what the hidden units above 0 add, (H, N, C)
        histories = max(1, BLOCK // max(1, k.shape[1] * constant.shape[1] * len(out)))
        if k.device.type != "cpu":
            histories = max(1, len(k))
        blocks = (part.split(histories) for part in (constant.flatten(1), k, matrix.flatten(1, 2)))
        for of_target, rows, weights in zip(*blocks, strict=True):
            hidden = torch.baddbmm(of_target.unsqueeze(1), rows, weights.mT).relu_()  # (H', N, C * 36)
            above.append(hidden.unflatten(2, (-1, len(out))) @ out)
        scores = slope * linear + (1 - slope) * torch.cat(above).mT + self.out.bias
        return scores / q.shape[-1]


class PositionTwice(ScaledDotProduct):
    """The published code's score in hard search: <q, k> / sqrt(3 d) over all three fields, and position once more."""

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N)."""
        q, k = concatenated(target), concatenated(behaviour)
        return q @ k.mT / math.sqrt(q.shape[-1]) + position_scores(target, behaviour)
