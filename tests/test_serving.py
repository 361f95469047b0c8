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


@pytest.mark.parametrize("kind", ["DARE", "TWIN"])
def test_both_stages_equal_the_model(kind: str) -> None:
    sizes = {"items": 40, "categories": 6, "history": 30, "size": 6, "top_k": 4}
    model = DARE(**sizes, attention_size=2) if kind == "DARE" else TWIN(**sizes)
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
    target, behaviours = attention_rows(model, batch)
    columns = serving.search.module()(torch.zeros_like(target[:, 0]), behaviours, torch.ones_like(batch.valid))
    assert (columns == torch.tensor([3, 2, 1, 0])).all(), "of equal scores the newest, newest first"
    model.initialise(2, 0.5)
    assert torch.equal(serve(serving, model, batch)[1], probability), "the programs hold a copy of the weights"


@pytest.mark.parametrize("name", ["ETA", "SIM (hard)", "SDIM", "TWIN-V2"])
def test_other_searches_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="K highest scores"):
        build_model(ModelConfig(name=name, size=4), Counts(40, 6, 12)).to_serving()
