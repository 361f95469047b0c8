"""DIN's learned score, computed block by block so that its hidden units stay in the processor's cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from dare_core.models.embeddings import Rows
from dare_core.models.kernels.autograd import first_derivative_only
from dare_core.models.kernels.prelu import PReLU
from dare_core.schedule import one_thread

BLOCK = 2**17
"""Hidden units at a time: half a MiB in float32."""


def _blocks(k: Tensor, by_target: Tensor) -> Iterator[slice]:
    """Runs of histories whose hidden units make a block."""
    step = max(1, BLOCK // max(1, k.shape[1] * by_target.shape[1]))
    return (slice(first, first + step) for first in range(0, len(k), step))


class _InBlocks(torch.autograd.Function):
    """PReLU(k @ weights^T + by_target) @ out, (H, N, C), without ever holding all hidden units (H, N, C * 36).

    The backward pass computes them again, which costs less than writing and reading them.
    """

    @staticmethod
    @one_thread()
    def forward(ctx: Any, k: Tensor, weights: Tensor, by_target: Tensor, slope: Tensor, out: Tensor) -> Tensor:
        ctx.save_for_backward(k, weights, by_target, slope, out)
        candidates = by_target.shape[1] // len(out)
        scores = k.new_empty(len(k), k.shape[1], candidates)
        for block in _blocks(k, by_target):
            hidden = torch.baddbmm(by_target[block].unsqueeze(1), k[block], weights[block].transpose(1, 2))
            leaky_relu(hidden, slope.item(), inplace=True)
            torch.mv(hidden.view(-1, len(out)), out, out=scores[block].view(-1))
        return scores

    @staticmethod
    @first_derivative_only
    @one_thread()
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        k, weights, by_target, slope, out = ctx.saved_tensors
        gradient = gradient.contiguous()
        of_k, of_weights, of_by_target = torch.empty_like(k), torch.empty_like(weights), torch.empty_like(by_target)
        # Sums over all pairs of gradient times the hidden units above 0, and times those below.
        above, below = torch.zeros_like(out), torch.zeros_like(out)
        for block in _blocks(k, by_target):
            hidden = torch.baddbmm(by_target[block].unsqueeze(1), k[block], weights[block].transpose(1, 2))
            pairs = gradient[block].view(-1, 1)
            negative = hidden.clamp(max=0).view(-1, len(out))
            of_negative = negative.T @ pairs
            below += of_negative.squeeze(1)
            above += (hidden.view(-1, len(out)).T @ pairs - of_negative).squeeze(1)
            of_hidden = torch.mul(pairs, out, out=negative).view_as(hidden)
            of_hidden = torch.ops.aten.leaky_relu_backward(of_hidden, hidden, slope.item(), False)
            torch.bmm(of_hidden, weights[block], out=of_k[block])
            torch.bmm(of_hidden.transpose(1, 2), k[block], out=of_weights[block])
            torch.sum(of_hidden, 1, out=of_by_target[block])
        return of_k, of_weights, of_by_target, (below @ out).view_as(slope), above + slope * below


class LearnedScore(nn.Module):
    """DIN's score: an MLP of [q, k, q - k, q * k] -> 36 -> 1, divided by the width of q (DIN, 2018).

    The first layer is linear in k for a given q, so that every pair's hidden units come out of one product of
    the behaviours with a matrix made of the target.
    """

    def __init__(self, width: int, hidden: int = 36) -> None:
        super().__init__()
        self.hidden = nn.Linear(4 * width, hidden)
        self.activation = PReLU()
        self.out = nn.Linear(hidden, 1)

    def forward(self, target: Rows, behaviour: Rows) -> Tensor:
        """Scores (H, C, N); item and category only."""
        q = torch.cat([target["item"], target["category"]], -1)  # (H, C, D)
        k = torch.cat([behaviour["item"], behaviour["category"]], -1)  # (H, N, D)
        of_q, of_k, of_difference, of_product = self.hidden.weight.chunk(4, 1)  # (36, D) each
        by_target = (q @ (of_q + of_difference).T + self.hidden.bias).flatten(1, 2)  # (H, C * 36)
        # What is k's own rides along in the product of the pair.
        weights = (q.unsqueeze(2) * of_product + (of_k - of_difference)).flatten(1, 2)  # (H, C * 36, D)
        return self._of_hidden(k, weights, by_target).transpose(1, 2) / q.shape[-1]

    def _of_hidden(self, k: Tensor, weights: Tensor, by_target: Tensor) -> Tensor:
        """(H, N, C) from what the hidden units are made of."""
        if k.device.type == "cpu" and not torch.is_autocast_enabled("cpu"):
            out = self.out.weight.squeeze(0)
            return _InBlocks.apply(k, weights, by_target, self.activation.weight, out) + self.out.bias  # type: ignore[no-any-return]
        hidden = torch.baddbmm(by_target.unsqueeze(1), k, weights.transpose(1, 2))  # (H, N, C * 36)
        hidden = self.activation(hidden).unflatten(2, (-1, self.hidden.out_features))
        return self.out(hidden).squeeze(-1)  # type: ignore[no-any-return]
