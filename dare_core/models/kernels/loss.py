"""The training loss as one node of the graph: the same number as its formula, with one small backward pass."""

from typing import Any

import torch
from torch import Tensor

from dare_core.models.kernels.autograd import first_derivative_only


class _CrossEntropy(torch.autograd.Function):
    """The softmax over two logits is the logistic function of their difference."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tiny: float) -> Tensor:
        probability = logits[..., 1] - logits[..., 0]  # of what happened
        probability[:, 0].neg_()
        probability.sigmoid_()
        ctx.tiny = tiny
        ctx.save_for_backward(probability)
        return (probability + tiny).log_().mean().neg_()

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (probability,) = ctx.saved_tensors
        slope = probability * (probability - 1) / (probability + ctx.tiny) * (gradient / probability.numel())
        slope[:, 0].neg_()
        return torch.stack([-slope, slope], -1), None


def cross_entropy_in_one_node(logits: Tensor, tiny: float) -> Tensor:
    """Mean of -log(probability + tiny) of what happened; logits (H, C, 2), the first candidate is clicked."""
    return _CrossEntropy.apply(logits, tiny)  # type: ignore[no-any-return]
