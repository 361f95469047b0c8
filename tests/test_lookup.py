"""The lookup's gradient is torch's own."""

import pytest
import torch
from torch.nn import functional

from dare_core.models.kernels.lookup import lookup


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize("ids_kind", [torch.int32, torch.int64])
def test_equal_to_torch(kind: torch.dtype, ids_kind: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    table = torch.randn(50, 6, dtype=kind, generator=generator)
    ids = torch.randint(0, 50, (7, 40), generator=generator).to(ids_kind)
    weights = torch.randn(7, 40, 6, dtype=kind, generator=generator)
    gradients = []
    for read in (lambda t: lookup([t], [[ids]])[0][0], lambda t: functional.embedding(ids, t)):
        leaf = table.clone().requires_grad_()
        rows = read(leaf)
        assert torch.equal(rows, table[ids.long()])
        (rows * weights).sum().backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0], gradients[1], atol=1e-12 if kind is torch.float64 else 1e-4)


def test_broadcast_gradients() -> None:
    """A gradient that is not contiguous, as an expanded row's, adds up all the same."""
    table = torch.ones(5, 3, requires_grad=True)
    lookup([table], [[torch.tensor([1, 1, 4])]])[0][0].sum(0).sum().backward()
    assert table.grad is not None
    assert table.grad.tolist() == [[0.0] * 3, [2.0] * 3, [0.0] * 3, [0.0] * 3, [1.0] * 3]
