"""What is computed in one node of the graph equals its parts one by one, from the tables to the pooled histories."""

import pytest
import torch
from conftest import random_batch
from torch import nn

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.models.click_model import ClickModel, Output
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model

FUSED = (
    "TWIN", "DARE", "TWIN-4E", "three tables", "TWIN (w/o TR)", "DARE (w/o TR)", "TWIN (product)", "TWIN (w/ proj.)",
    "projection (MLP with one hidden layer)", "projection (only category)", "projection (no item)",
    "large embedding with small output",
)  # fmt: skip
OTHERS = ("DIN", "SDIM", "ETA", "TWIN (hard)", "projection (after concatenation)", "TWIN-V2", "SIM (soft)")
COUNTS = Counts(40, 6, 30)


def build(name: str) -> ClickModel:
    config = ModelConfig(name=name, size=6, top_k=5, attention_size=4 if name.startswith("DARE") else None)
    return build_model(config, COUNTS, TrainingConfig(initial_scale=0.5), 3).double()


def step(model: ClickModel, batch: object) -> tuple[Output, dict[str, torch.Tensor | None]]:
    output = model.compute(batch)
    main, auxiliary = model.losses(output)
    (main + auxiliary).backward()
    return output, {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("shortest", [0, 30])
def test_one_pass_equals_the_parts(name: str, shortest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = random_batch(length=30, items=40, shortest=shortest)
    model = build(name)
    assert model.in_one_pass()
    output, gradients = step(model, batch)
    monkeypatch.setattr(ClickModel, "in_one_pass", lambda self: False)
    plain, expected = step(build(name), batch)
    for field in ("logits", "auxiliary_logits", "scores", "weights", "features"):
        torch.testing.assert_close(getattr(output, field), getattr(plain, field), rtol=0, atol=1e-11)
    assert torch.equal(output.retrieved, plain.retrieved) and torch.equal(output.considered, plain.considered)
    for parameter, gradient in expected.items():
        torch.testing.assert_close(gradients[parameter], gradient, rtol=0, atol=1e-11, msg=parameter)


def test_of_equal_scores_the_newest_are_retrieved() -> None:
    batch = random_batch(length=30, items=40, shortest=30)
    model = build("TWIN")
    for table in model.embedding_parameters():
        nn.init.zeros_(table)
    retrieved = model.compute(batch).retrieved
    assert retrieved[..., -5:].all() and not retrieved[..., :-5].any()


@pytest.mark.parametrize("name", OTHERS)
def test_other_compositions_keep_to_their_parts(name: str) -> None:
    assert not build_model(ModelConfig(name=name, size=6), COUNTS).in_one_pass()


def test_recorded_gradients_keep_to_the_parts() -> None:
    model = build("TWIN")
    model.embeddings.apart = True
    assert not model.in_one_pass()
