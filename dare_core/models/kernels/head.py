"""BatchNorm, linear layers and PReLU in one node of the graph, for small batches on a CPU.

With some dozen samples per step the bookkeeping of a node each costs several times what it computes. The operations
are PyTorch's own; `tests/test_fused.py` compares them with the layers one by one.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dare_core.models.kernels.autograd import first_derivative_only

aten = torch.ops.aten


class _Head(torch.autograd.Function):
    """Logits of rows (n, F). `parameters`: BatchNorm's weight and bias; then weight, bias and slope of every linear
    layer, the last without a slope."""

    @staticmethod
    def forward(ctx: Any, norm: nn.BatchNorm1d, rows: Tensor, *parameters: Tensor) -> Tensor:
        weight, bias, *layers = parameters
        running = norm.running_mean, norm.running_var
        values, mean, deviation = torch.native_batch_norm(
            rows, weight, bias, *running, True, norm.momentum or 0.0, norm.eps
        )
        saved, slopes = [values], []
        for at in range(0, len(layers) - 2, 3):
            before = torch.addmm(layers[at + 1], values, layers[at].t())
            slopes.append(layers[at + 2].item())
            values = functional.leaky_relu(before, slopes[-1])
            saved += [before, values]
        ctx.norm, ctx.slopes = norm, slopes
        ctx.save_for_backward(rows, weight, mean, deviation, *layers, *saved)
        return torch.addmm(layers[-1], values, layers[-2].t())

    @staticmethod
    @first_derivative_only
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        rows, weight, mean, deviation, *rest = ctx.saved_tensors
        count = 3 * len(ctx.slopes) + 2
        layers, saved = rest[:count], rest[count:]
        found: list[Tensor] = []
        for layer in range(len(ctx.slopes), -1, -1):
            values = saved[2 * layer]  # what the layer was given
            found[:0] = [gradient.t() @ values, gradient.sum(0)]
            gradient = gradient @ layers[3 * layer]
            if layer:
                before, slope = saved[2 * layer - 1], ctx.slopes[layer - 1]
                found.insert(0, torch.dot(gradient.flatten(), before.clamp(max=0).flatten()).view(1))
                gradient = aten.leaky_relu_backward(gradient, before, slope, False)
        norm = ctx.norm
        of_rows, of_weight, of_bias = aten.native_batch_norm_backward(
            gradient, rows, weight, norm.running_mean, norm.running_var, mean, deviation, True, norm.eps, [True] * 3
        )
        return None, of_rows, of_weight, of_bias, *found


def head_in_one_pass(head: nn.Sequential, rows: Tensor) -> Tensor:
    """Logits (n, 2) of rows (n, F) in training mode; BatchNorm's running statistics move as they would."""
    norm = head[0]
    assert isinstance(norm, nn.BatchNorm1d) and norm.num_batches_tracked is not None
    norm.num_batches_tracked.add_(1)
    return _Head.apply(norm, rows, *head.parameters())  # type: ignore[no-any-return]
