"""The models as ordinary modules on tensors of ids, and the package's public names."""

import subprocess
import sys

import pytest
import torch
from conftest import random_batch
from torch.nn.functional import binary_cross_entropy_with_logits

import dare_core
from dare_core import DARE, MODELS, TWIN
from dare_core.config import ModelConfig
from dare_core.models.click_model import TWIN4E, ClickModel
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model

SIZES = {"items": 40, "categories": 6, "history": 12, "size": 4, "top_k": 3}


def ids(batch):
    return batch.target_items, batch.target_categories, batch.history_items, batch.history_categories


def weighted(model: ClickModel) -> ClickModel:
    """With weights large enough that scores differ, and small enough that the 1e-8 of the loss does not matter."""
    model.initialise(1, 0.1)
    return model.double()


def test_importing_the_package_imports_no_torch() -> None:
    code = "import sys, dare_core; dir(dare_core); print([m for m in ('torch', 'numba', 'numpy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert all(getattr(dare_core, name) is not None and name in dir(dare_core) for name in dare_core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        dare_core.nothing  # noqa: B018


@pytest.mark.parametrize(
    ("model", "name", "sizes"),
    [(DARE, "DARE", {"attention_size": 2}), (DARE, "DARE", {}), (TWIN, "TWIN", {}), (TWIN4E, "TWIN-4E", {})],
)
def test_the_classes_are_the_rows_of_the_table(model: type[DARE], name: str, sizes: dict[str, int]) -> None:
    ours = model(**SIZES, **sizes)
    row = build_model(ModelConfig(name=name, size=4, top_k=3, **sizes), Counts(40, 6, 12))
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in row.state_dict().items()}
    ours.load_state_dict(row.state_dict())
    batch = random_batch()
    assert torch.equal(ours.compute(batch).logits, row.compute(batch).logits)


def test_ablations_are_a_form() -> None:
    ours = TWIN(**SIZES, form="concatenation")
    row = build_model(ModelConfig(name="TWIN (w/o TR)", size=4, top_k=3), Counts(40, 6, 12))
    ours.load_state_dict(row.state_dict())


def test_initial_weights_come_from_torchs_generator() -> None:
    torch.manual_seed(5)
    one, two = DARE(**SIZES), DARE(**SIZES)
    torch.manual_seed(5)
    again = DARE(**SIZES)
    for a, b, c in zip(one.parameters(), two.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, c)
        assert a.dim() < 2 or not torch.equal(a, b)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("training", [True, False])
def test_click_logits_of_ids(name: str, training: bool) -> None:
    model = build_model(ModelConfig(name=name, size=4, top_k=3), Counts(40, 6, 12)).train(training)
    batch = random_batch(shortest=1)
    logits = model(*ids(batch))
    assert logits.shape == (6, 3)
    torch.testing.assert_close(logits.sigmoid() + 1e-8, model.compute(batch).probability)
    single = model.eval()(batch.target_items[:, 1], batch.target_categories[:, 1], *ids(batch)[2:])
    assert single.shape == (6,)
    torch.testing.assert_close(single, model(*ids(batch))[:, 1])


def test_a_mask_is_padding() -> None:
    model, batch = weighted(DARE(**SIZES)).eval(), random_batch(shortest=2)
    whole = random_batch(shortest=12)  # the same ids where the histories overlap
    expected = model(*ids(batch))
    filled = torch.where(batch.valid, batch.history_items, whole.history_items)
    categories = torch.where(batch.valid, batch.history_categories, whole.history_categories)
    assert not torch.equal(model(*ids(batch)[:2], filled, categories), expected)
    assert torch.equal(model(*ids(batch)[:2], filled, categories, mask=batch.valid), expected)


@pytest.mark.parametrize("kind", [DARE, TWIN])
def test_the_loss_is_the_sum_of_both_heads(kind: type[DARE]) -> None:
    model, batch = weighted(kind(**SIZES)), random_batch(shortest=2)
    main, auxiliary = model.forward_with_auxiliary(*ids(batch))
    assert auxiliary is not None and main.shape == auxiliary.shape == (6, 3)
    clicked = torch.zeros_like(main)
    clicked[:, 0] = 1
    expected = binary_cross_entropy_with_logits(main, clicked) + binary_cross_entropy_with_logits(auxiliary, clicked)
    loss = model.loss(*ids(batch))
    assert abs(float(loss.detach() - expected.detach())) < 1e-6  # 1e-8 within each logarithm
    gradients = [torch.autograd.grad(value, list(model.parameters()), retain_graph=True) for value in (loss, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)
    assert model.eval().forward_with_auxiliary(*ids(batch))[1] is None


def test_another_loop_trains_it() -> None:
    torch.manual_seed(0)
    model, batch = DARE(**SIZES), random_batch(histories=40, shortest=6)
    clicked = (batch.target_categories == batch.history_categories[:, -1:]).float()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    losses = []
    for _ in range(60):
        loss = binary_cross_entropy_with_logits(model(*ids(batch)), clicked)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_bad_ids_are_refused() -> None:
    model, batch = DARE(**SIZES), random_batch()
    good = list(ids(batch))
    wrong = {
        "from 0": (good[0] + 40, *good[1:]),
        "item must": (good[0] - 41, *good[1:]),
        "category must": (good[0], good[1] + 6, *good[2:]),
        "takes 12": (*good[:2], *(torch.cat([part, part], 1) for part in good[2:])),
        "one shape, (B, N)": (*good[:3], good[3][:, 1:]),
        "one row per history": (good[0][1:], good[1][1:], *good[2:]),
    }
    for message, given in wrong.items():
        with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
            model(*given)
    with pytest.raises(ValueError, match="the clicked item first"):
        model.loss(good[0][:, 0], good[1][:, 0], *good[2:])
