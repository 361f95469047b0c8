"""The examples run, and what they train has learned."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest
import torch

EXAMPLES = Path(__file__).parent.parent / "examples"


def example(name: str) -> ModuleType:
    """An example as a module."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fuxictr_dare() -> ModuleType:
    """The example with FuxiCTR, where that is installed; FUXICTR_REQUIRED makes it an error where it is not."""
    if not os.environ.get("FUXICTR_REQUIRED"):
        pytest.importorskip("fuxictr")
    return example("fuxictr_dare")


def test_dare_learns_from_tensors_of_ids() -> None:
    assert example("train_dare").main() > 0.85, "without learning 0.72"


def test_dare_learns_in_the_loop_of_fuxictr(fuxictr_dare: ModuleType) -> None:
    assert fuxictr_dare.main()["AUC"] > 0.75


def test_dare_takes_what_models_of_longctr_take(fuxictr_dare: ModuleType, tmp_path: Path) -> None:
    """The same feature map and batch go through FuxiCTR's own TWIN; DARE's prediction is that of its module."""
    from model_zoo.LongCTR.TWIN.TWIN import TWIN

    log = fuxictr_dare.GeneratedLog()
    features = log.feature_map(tmp_path)
    features.default_emb_dim = 4  # as FuxiCTR sets it from a model's parameters
    settings = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["AUC"], "verbose": 0}
    settings |= {"model_root": str(tmp_path), "topk": 10}
    twin = TWIN(features, embedding_dim=4, attention_dim=8, short_seq_len=20, **settings).eval()
    dare = fuxictr_dare.DARE(features, max_len=40, **settings).eval()
    inputs = next(iter(log.loader(20, 21)))  # 20 of 40 behaviours: the rest is padding
    sample_features, item_features, mask = inputs
    own = sample_features, dict(item_features), mask
    assert twin(own)["y_pred"].shape == dare(inputs)["y_pred"].shape == (128, 1)
    items, categories = (item_features[name].view(128, -1) for name in ("item_id", "category_id"))
    expected = dare.model(items[:, -1], categories[:, -1], items[:, :-1], categories[:, :-1]).sigmoid()
    assert torch.equal(dare(inputs)["y_pred"][:, 0], expected)
    assert dare.get_labels(inputs).sum() == 64
