"""DIN's learned score block by block: the hidden activations of a block fit into the processor's cache."""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from dare_core.models.kernels.autograd import first_derivative_only
from dare_core.schedule import one_thread

BLOCK = 2**17
"""Hidden activations per block: half a MiB in float32."""


def _blocks(k: Tensor, by_target: Tensor) -> Iterator[slice]:
    """Slices of histories whose hidden activations fit into a block."""
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


def scores_in_blocks(k: Tensor, weights: Tensor, by_target: Tensor, slope: Tensor, out: Tensor) -> Tensor:
    """Output (H, N, C) of the score's last layer, without its bias.

    Arguments: behaviours `k` (H, N, D); of every target, the first layer as a matrix `weights` (H, C * hidden, D) and
    its constant part `by_target` (H, C * hidden); PReLU's `slope` (1,); the last layer's weights `out` (hidden,).
    """
    return _InBlocks.apply(k, weights, by_target, slope, out)  # type: ignore[no-any-return]
