"""The device of a training, and whether its memory suffices: said before the training starts."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace

import psutil
import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch, Samples
from dare_core.errors import InputError
from dare_core.models.click_model import ClickModel

GIB = 2**30
COPIES = 4
"""What dense Adam keeps of every weight: itself, its gradient, two moments. Row-wise Adam needs no dense gradient, but
the best weights are kept beside."""


def free_memory() -> int:
    """Bytes that this process may still take: what the machine has free, or up to a limit of the process."""
    free = int(psutil.virtual_memory().available)
    with suppress(ImportError):  # not on Windows
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            free = min(free, limit - psutil.Process().memory_info().vms)
    return max(free, 0)


def check_weights(weights: int) -> None:
    """Raise InputError where this machine's memory does not hold a training of so many bytes of weights."""
    needed, free = COPIES * weights, free_memory()
    if needed > free:
        raise InputError(
            f"This training needs {needed / GIB:.1f} GiB of memory for its tables and their optimiser, "
            f"{free / GIB:.1f} GiB are free: take a smaller size, or a log with fewer items."
        )


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn an allocation that fails into one sentence."""
    try:
        yield
    except MemoryError as error:
        raise InputError("There is too little memory: take a smaller size or batch, or fewer users.") from error
    except RuntimeError as error:
        words = str(error).splitlines()[0]
        if "memory" not in words:
            raise
        raise InputError(f"There is too little memory ({words}): take a smaller size or batch.") from error


def usable_device(name: str) -> torch.device:
    """The device of a name. Raises InputError where PyTorch does not know it or does not find it here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"Device {name!r} cannot be used here ({reason}): take cpu, or cuda with a GPU.") from error
    return device


def size_of(*values: object) -> int:
    """Bytes of the tensors among some values."""
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))


def saved_bytes(model: ClickModel, batch: Batch) -> int:
    """Bytes that a training step keeps from its forward pass for its backward pass: an upper bound.

    A copy of the model runs on PyTorch's meta device, which computes and allocates nothing. What two operations keep
    counts twice.
    """
    kept: list[int] = []

    def count(tensor: Tensor) -> Tensor:
        kept.append(size_of(tensor))
        return tensor

    memo = {id(tensor): torch.empty_like(tensor, device="meta") for tensor in model.buffers()}
    memo |= {id(weight): nn.Parameter(torch.empty_like(weight, device="meta")) for weight in model.parameters()}
    there = copy.deepcopy(model, memo)
    tensors = {field.name: getattr(batch, field.name) for field in fields(Batch)}
    ids = replace(batch, **{name: value.to("meta") for name, value in tensors.items() if value is not None})
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        there.losses(there.compute(ids), ids.clicked)
    return sum(kept)


def memory_needed(model: ClickModel, splits: dict[str, Samples], histories: int) -> int:
    """Bytes that a training with dense Adam needs on its device, where the samples stay too.

    Weights four times (`COPIES`), samples and clicks once, and what a batch's forward pass keeps, with as much again
    for the backward pass.
    """
    clicks = splits["train"].clicks
    samples = [getattr(split, field.name) for split in splits.values() for field in fields(split)]
    resident = size_of(clicks.items, clicks.categories, *samples)
    step = saved_bytes(model, splits["train"].batch(slice(0, histories)))
    return COPIES * size_of(*model.state_dict().values()) + resident + 2 * step


def check_memory(model: ClickModel, splits: dict[str, Samples], histories: int, device: torch.device) -> str:
    """One sentence on the GPU memory that a training needs; empty on a CPU. Raises InputError when less is free."""
    if device.type != "cuda":
        return ""
    needed, free = memory_needed(model, splits, histories), torch.cuda.mem_get_info(device)[0]
    said = f"needs {needed / GIB:.1f} GiB of the device's memory, {free / GIB:.1f} GiB are free"
    if needed > free:
        raise InputError(f"This training {said}: take a smaller size or batch, or device cpu.")
    return f"This training {said}."
