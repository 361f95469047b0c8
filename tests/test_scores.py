"""Top-K, softmax, scores and loss against their definitions in plain PyTorch."""

import numba
import pytest
import torch
from torch import nn

from dare_core.models import attention
from dare_core.models.attention import LearnedScore
from dare_core.models.click_model import cross_entropy, masked_softmax, top_k_mask
from dare_core.models.kernels.lookup import lookup

DOUBLE = {"dtype": torch.float64, "generator": torch.Generator().manual_seed(0)}


def some_valid(share: float = 0.7) -> torch.Tensor:
    return torch.rand(5, 1, 40, generator=torch.Generator().manual_seed(1)) < share


@pytest.mark.parametrize("top_k", [1, 7, 40, 99])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.7, 1.0])
def test_keep_best_is_top_k(top_k: int, share: float) -> None:
    ranking, valid = torch.randn(5, 3, 40, **DOUBLE), some_valid(share)
    keep = top_k_mask(ranking, valid, top_k)
    columns = ranking.masked_fill(~valid, -1e9).topk(min(top_k, 40), -1).indices
    expected = torch.zeros_like(keep).scatter(-1, columns, True) & valid
    assert torch.equal(keep, expected)
    assert torch.equal(keep, top_k_mask(ranking, valid.expand_as(ranking), top_k))


def test_of_equal_ranks_the_newest_are_kept() -> None:
    keep = top_k_mask(torch.zeros(1, 1, 6), torch.tensor([[[True, True, True, True, True, False]]]), 2)
    assert keep.flatten().tolist() == [False, False, False, True, True, False]


def test_of_many_equal_ranks_no_more_than_k_are_kept() -> None:
    ranking = torch.randint(0, 4, (5, 3, 40), generator=torch.Generator().manual_seed(3)).float()
    for values in (ranking, ranking * 1e-30, ranking * 1e30 - 1e30):
        keep = top_k_mask(values, some_valid(), 9)
        newer = values.double() + torch.arange(40) / 1e6 * values.abs().amax()  # breaks ties
        assert torch.equal(keep, top_k_mask(newer, some_valid(), 9)) and (keep.sum(-1) == 9).all()


def test_attention_weights_are_a_masked_softmax() -> None:
    scores = torch.randn(5, 3, 40, **DOUBLE)
    keep = some_valid(0.5).expand_as(scores).clone()
    keep[0] = False  # nothing kept: no weight
    expected = torch.where(keep, scores.exp(), 0)
    expected = expected / expected.sum(-1, keepdim=True).clamp(min=1e-300)
    assert torch.allclose(masked_softmax(scores, keep), expected, atol=1e-14)
    assert not masked_softmax(scores, keep)[0].any()


def test_a_second_derivative_is_refused() -> None:
    """It would be wrong without a word."""
    rows = torch.randn(7, 2, **DOUBLE).requires_grad_()
    read = lookup([rows], [[torch.tensor([[1, 3], [6, 2]])]])[0][0]
    with pytest.raises(RuntimeError, match="no second derivative"):
        torch.autograd.grad(read.sum(), rows, create_graph=True)


def test_the_loss_is_its_formula() -> None:
    logits = torch.randn(4, 3, 2, **DOUBLE).requires_grad_()
    log_probability = (torch.softmax(logits, -1) + 1e-8).log()
    plain = -(log_probability[:, :1, 0].sum() + log_probability[:, 1:, 1].sum()) / 12
    assert torch.allclose(cross_entropy(logits), plain, atol=1e-14)
    assert torch.autograd.gradcheck(cross_entropy, logits)


@pytest.mark.parametrize("block", [1, 100, 10**6])
def test_the_learned_score_in_blocks_is_the_learned_score(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    """Against an MLP of the four vectors of each pair, gradients included; blocks of one history, some, all."""
    monkeypatch.setattr(attention, "BLOCK", block)
    score = LearnedScore(4, hidden=6).double()
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
        lookup([table], [[ids]])[0][0].backward(upstream)
        keep = top_k_mask(leaf, torch.ones(40, 1, 30, dtype=torch.bool), 5)
        masked_softmax(leaf, keep).square().sum().backward()
        results.append((table.grad, keep, leaf.grad))
    for one, several in zip(*results, strict=True):
        assert torch.equal(one, several)
