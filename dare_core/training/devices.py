"""On what a training runs, and whether its memory suffices."""

from dataclasses import fields

import torch
from torch import Tensor, nn

from dare_core.data.samples import Batch, Samples
from dare_core.errors import InputError
from dare_core.models.click_model import ClickModel

GIB = 2**30
COPIES = 4
"""What dense Adam keeps of every weight: itself, its gradient, two moments."""


def usable_device(name: str) -> torch.device:
    """The device of a name. Raises InputError where PyTorch does not know it or does not find it here."""
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(f"Device {name!r} cannot be used here ({reason}): take cpu, or cuda with a GPU.") from error
    return device


def size_of(tensor: Tensor) -> int:
    """Bytes."""
    return tensor.numel() * tensor.element_size()


class _Losses(nn.Module):
    """A model's losses of a batch, as a module: `functional_call` needs one."""

    def __init__(self, model: ClickModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        return self.model.losses(self.model.compute(batch))


def saved_bytes(model: ClickModel, batch: Batch) -> int:
    """Bytes that the forward pass of a training step keeps for the backward pass, counted without computing.

    What two operations keep is counted twice: an upper bound.
    """
    total = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal total
        total += size_of(tensor)
        return tensor

    losses = _Losses(model)
    abstract = {
        name: torch.empty_like(tensor, device="meta") for name, tensor in losses.state_dict(keep_vars=True).items()
    }
    parameters = {name for name, _ in losses.named_parameters()}
    abstract = {name: tensor.requires_grad_(name in parameters) for name, tensor in abstract.items()}
    ids = Batch(*(getattr(batch, field.name).to("meta") for field in fields(Batch)))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        main, auxiliary = torch.func.functional_call(losses, abstract, (ids,))
    del main, auxiliary
    return total


def memory_needed(model: ClickModel, splits: dict[str, Samples], histories: int) -> int:
    """Bytes that a training needs on its device with dense Adam, when the splits stay there too.

    Weights four times (`COPIES`), samples and clicks once, and a batch's forward pass with as much again for
    its backward pass.
    """
    weights = sum(size_of(weight) for weight in model.state_dict().values())
    clicks = splits["train"].clicks
    values = [getattr(samples, field.name) for samples in splits.values() for field in fields(samples)]
    samples = [value for value in values if isinstance(value, Tensor)]
    resident = sum(size_of(tensor) for tensor in [clicks.items, clicks.categories, *samples])
    batch = splits["train"].batch(slice(0, histories))
    return COPIES * weights + resident + 2 * saved_bytes(model, batch)


def check_memory(model: ClickModel, splits: dict[str, Samples], histories: int, device: torch.device) -> str:
    """What a training needs of a GPU's memory, in words; nothing on a CPU.

    Raises InputError when the GPU has less free.
    """
    if device.type != "cuda":
        return ""
    needed, free = memory_needed(model, splits, histories), torch.cuda.mem_get_info(device)[0]
    words = f"needs {needed / GIB:.1f} GiB of the device's memory, {free / GIB:.1f} GiB are free"
    if needed > free:
        raise InputError(f"This training {words}: take a smaller size or batch, or device cpu.")
    return f"This training {words}."
