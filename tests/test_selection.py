"""The CPU's own arithmetic against PyTorch's: inner products, top-K, softmax, PReLU; and it ignores threads."""

import numba
import pytest
import torch
from torch import nn

from dare_core import learned_score
from dare_core.click_model import PReLU
from dare_core.lookup import lookup
from dare_core.selection import PADDING_SCORE, attend, inner_products, keep_best

DOUBLE = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}


def some_valid(share: float = 0.7) -> torch.Tensor:
    return torch.rand(5, 1, 40, generator=torch.Generator().manual_seed(1)) < share


@pytest.mark.parametrize("top_k", [1, 7, 40, 99])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
def test_keep_best_is_top_k(top_k: int, share: float) -> None:
    ranking, valid = torch.randn(5, 3, 40, **DOUBLE), some_valid(share)
    keep = keep_best(ranking, valid, top_k)
    columns = ranking.masked_fill(~valid, -1e9).topk(min(top_k, 40), -1).indices
    expected = torch.zeros_like(keep).scatter(-1, columns, True) & valid
    assert torch.equal(keep, expected)
    assert torch.equal(keep, keep_best(ranking, valid.expand_as(ranking), top_k))


def test_of_equal_ranks_the_newest_are_kept() -> None:
    keep = keep_best(torch.zeros(1, 1, 6), torch.tensor([[[True, True, True, True, True, False]]]), 2)
    assert keep.flatten().tolist() == [False, False, False, True, True, False]


def plain_attend(scores: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return torch.softmax(scores.masked_fill(~keep, PADDING_SCORE), -1) * keep


def test_attend_is_a_masked_softmax() -> None:
    scores = (3 * torch.randn(5, 3, 40, **DOUBLE)).requires_grad_()
    keep = some_valid(0.5).expand_as(scores).clone()
    keep[0] = False  # nothing kept: no weight
    upstream = torch.randn(5, 3, 40, **DOUBLE)
    results = []
    for way in (attend, plain_attend):
        weights = way(scores, keep)
        (gradient,) = torch.autograd.grad((weights * upstream).sum(), scores)
        results.append((weights.detach(), gradient))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-14)
    assert not results[0][0][0].any() and not torch.allclose(plain_attend(scores, ~keep), results[0][0])


def test_gradients_of_the_products_and_of_prelu() -> None:
    q, k = (torch.randn(2, n, 5, **DOUBLE).requires_grad_() for n in (3, 7))
    assert torch.autograd.gradcheck(inner_products, (q, k))
    ours, theirs = PReLU().double(), nn.PReLU().double()
    results = []
    for layer in (ours, theirs):
        values = torch.linspace(-2, 2, 30, dtype=torch.float64).view(3, 10).requires_grad_()
        out = layer(values)
        (out**2).sum().backward()
        results.append((out.detach(), values.grad, layer.weight.grad))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-14)


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_the_learned_score_in_blocks_is_the_learned_score(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Against an MLP of the four vectors of each pair, gradients included; blocks of one history, some, all."""
    monkeypatch.setattr(learned_score, "BLOCK", block)
    score = learned_score.LearnedScore(4, hidden=6).double()
    results = []
    for ours in (True, False):
        own = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(5)}
        target, behaviour = (
            {field: torch.randn(5, n, 2, **own).requires_grad_() for field in ("item", "category")} for n in (3, 7)
        )
        upstream = torch.randn(5, 3, 7, **own)
        if ours:
            scores = score(target, behaviour)
        else:
            q, k = (torch.cat(list(rows.values()), -1) for rows in (target, behaviour))
            q, k = torch.broadcast_tensors(q.unsqueeze(2), k.unsqueeze(1))
            hidden = nn.functional.prelu(score.hidden(torch.cat([q, k, q - k, q * k], -1)), score.activation.weight)
            scores = score.out(hidden).squeeze(-1) / 4
        leaves = [*target.values(), *behaviour.values(), *score.parameters()]
        results.append([scores, *torch.autograd.grad((scores * upstream).sum(), leaves)])
    assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(*results, strict=True))
    assert all(part.abs().max() > 1e-3 for part in results[0])


def test_nothing_depends_on_the_number_of_threads() -> None:
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(0, 50, (40, 30), generator=generator)
    upstream, scores = torch.randn(40, 30, 6, generator=generator), torch.randn(40, 3, 30, generator=generator)
    most, results = numba.get_num_threads(), []
    for threads in (1, most):
        numba.set_num_threads(threads)
        table, leaf = torch.zeros(50, 6, requires_grad=True), scores.clone().requires_grad_()
        lookup(table, ids)[0].backward(upstream)
        keep = keep_best(leaf, torch.ones(40, 1, 30, dtype=torch.bool), 5)
        attend(leaf, keep).square().sum().backward()
        results.append((table.grad, keep, leaf.grad))
    for one, several in zip(*results, strict=True):
        assert torch.equal(one, several)
