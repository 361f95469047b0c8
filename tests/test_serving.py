"""The exported search and scorer compute what the model computes in evaluation mode."""

import pytest
import torch
from conftest import random_batch

from dare_core import DARE, TWIN
from dare_core.config import ModelConfig
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import Counts
from dare_core.models.serving import Serving, attention_rows
from dare_core.models.zoo import build_model


def serve(serving: Serving, model: ClickModel, batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Mask (B, N) of the retrieved behaviours and click probabilities (B,), by both programs."""
    target, behaviours = attention_rows(model, batch)
    columns = serving.search.module()(target[:, 0], behaviours, batch.valid)
    items, categories = (ids.gather(1, columns) for ids in (batch.history_items, batch.history_categories))
    positions = batch.history_items.shape[1] - columns
    targets = batch.target_items[:, 0], batch.target_categories[:, 0]
    retrieved = torch.zeros_like(batch.valid).scatter(1, columns, True) & batch.valid
    return retrieved, serving.scorer.module()(*targets, items, categories, positions)


@pytest.mark.parametrize("kind", ["DARE", "TWIN", "TWIN (w/ proj.)"])
def test_both_stages_equal_the_model(kind: str) -> None:
    sizes = {"items": 40, "categories": 6, "history": 30, "size": 6, "top_k": 4}
    model: ClickModel
    if kind == "DARE":
        model = DARE(**sizes, attention_size=2)
    elif kind == "TWIN":
        model = TWIN(**sizes)
    else:
        model = build_model(ModelConfig(name=kind, size=6, top_k=4), Counts(40, 6, 30))
    model.initialise(1, 0.5)
    serving = model.to_serving()
    assert model.training, "exporting leaves the model's mode alone"
    model.eval()
    for histories, length, shortest in ((1, 30, 30), (7, 17, 0), (5, 4, 2)):
        batch = random_batch(histories, 1, length, shortest=shortest, seed=histories)
        with torch.no_grad():
            output = model.compute(batch)
        retrieved, probability = serve(serving, model, batch)
        assert torch.equal(retrieved, output.retrieved[:, 0])
        torch.testing.assert_close(probability, output.probability[:, 0], rtol=0, atol=1e-6)


def test_the_programs_hold_a_copy_of_the_weights() -> None:
    model, batch = TWIN(items=40, categories=6, history=12, size=4, top_k=3), random_batch(candidates=1, shortest=5)
    newest = batch.history_items[:, -3:], batch.history_categories[:, -3:]
    positions = torch.tensor([3, 2, 1]).expand(len(batch.history_items), -1)
    given = batch.target_items[:, 0], batch.target_categories[:, 0], *newest, positions
    scorer = model.to_serving().scorer.module()
    before = scorer(*given)
    model.initialise(3, 0.5)
    assert torch.equal(scorer(*given), before)


def test_of_equal_scores_the_newest_are_served() -> None:
    model = DARE(items=40, categories=6, history=12, size=4, top_k=3)
    model.initialise(1, 0.0)
    batch = random_batch(candidates=1, shortest=12)
    target, behaviours = attention_rows(model, batch)
    columns = model.to_serving().search.module()(target[:, 0], behaviours, batch.valid)
    assert (columns == torch.tensor([11, 10, 9])).all()


@pytest.mark.parametrize("name", ["ETA", "SIM (hard)", "SDIM", "TWIN-V2"])
def test_other_searches_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="K highest scores"):
        build_model(ModelConfig(name=name, size=4), Counts(40, 6, 12)).to_serving()
