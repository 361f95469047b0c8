"""What the project's own nodes of the autograd graph have in common."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


def first_derivative_only(backward: Callable[..., Result]) -> Callable[..., Result]:
    """A backward pass that refuses to be differentiated once more, because that would silently be wrong.

    PyTorch's `once_differentiable` speaks up only where the incoming gradient has one of its own: where the node is
    the root, as a loss is, the second derivative is left out without a word.
    """

    @wraps(backward)
    def checked(ctx: Any, *gradients: Any) -> Result:
        if torch.is_grad_enabled():  # only with create_graph=True
            raise RuntimeError("this part of a model has no second derivative: create_graph must stay off")
        return backward(ctx, *gradients)

    return checked


def plain_cpu(tensor: Tensor) -> bool:
    """Whether the compiled and fused passes may serve: on a CPU, in the tensor's own precision."""
    return tensor.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
