"""The search stage: the same scores and the same behaviours as the model's own search, and its time."""

import math

import numpy as np
import pytest
import torch
from conftest import random_batch

from dare_core.config import ModelConfig
from dare_core.models.click_model import ScaledDotProduct, top_k_mask
from dare_core.models.embeddings import Counts, Rows
from dare_core.models.zoo import build_model
from dare_core.studies.search_stage import add_up, measure, search

CONTENT = ("item", "category")


def stored_rows(behaviour: Rows) -> np.ndarray:
    """(N, 2 d) float32: a user's behaviours as they are stored, from attention embeddings (1, N, d) by field."""
    return np.ascontiguousarray(torch.cat([behaviour[field][0] for field in CONTENT], -1).detach().numpy())


def folded_targets(target: Rows) -> np.ndarray:
    """(C, 2 d) float32: targets with the score's scale 1 / sqrt(2 d), from attention embeddings (1, C, d)."""
    scale = math.sqrt(sum(target[field].shape[-1] for field in CONTENT))
    return np.ascontiguousarray((torch.cat([target[field][0] for field in CONTENT], -1) / scale).detach().numpy())


def position_scores(target: Rows, behaviour: Rows) -> np.ndarray:
    """(N,) float32: the position's part of a score, the same for every user and target."""
    q, k = target["position"][0], behaviour["position"]
    return (k @ q / math.sqrt(len(q))).detach().numpy()


@pytest.mark.parametrize("name, attention_size, length", [("DARE", 4, 300), ("DARE", 24, 130), ("TWIN", 16, 64)])
def test_equals_the_model_s_own_search(name: str, attention_size: int, length: int) -> None:
    model = build_model(ModelConfig(name=name, attention_size=attention_size, size=16), Counts(500, 30, length), seed=1)
    for table in model.embedding_parameters():
        torch.nn.init.normal_(table)
    batch = random_batch(1, 5, length, items=500, categories=30, shortest=length)
    vectors = model.embeddings(batch).used
    target, behaviour = vectors["attention", "target"], vectors["attention", "behaviour"]
    scores = ScaledDotProduct()(target, behaviour)[0]
    where, found = search(stored_rows(behaviour), position_scores(target, behaviour), folded_targets(target), 20)
    expected = scores.topk(20)
    np.testing.assert_allclose(found, expected.values.detach().numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(np.take_along_axis(scores.detach().numpy(), where, 1), found, rtol=1e-4, atol=1e-4)
    kept = np.zeros(scores.shape, bool)
    np.put_along_axis(kept, where, True, 1)
    assert (kept == top_k_mask(scores, batch.valid, 20).numpy()).all()
    without = search(stored_rows(behaviour), 0 * position_scores(target, behaviour), folded_targets(target), 20)[0]
    assert (np.sort(without) != np.sort(where)).any()  # the test would see a position left out


@pytest.mark.parametrize("order", ["rising", "falling", "equal"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 1_000])
def test_any_order_of_scores(order: str, length: int) -> None:
    positions = {
        "rising": np.arange(length),
        "falling": -np.arange(length),
        "equal": np.zeros(length),
    }[order].astype(np.float32)
    where, scores = search(np.zeros((length, 2), np.float32), positions, np.ones((2, 2), np.float32), 7)
    expected = np.argsort(-positions, kind="stable")[:7]  # of equal scores the first
    assert where.shape == (2, min(7, length)) and (where == expected).all()
    assert (scores == positions[expected]).all()


def test_an_empty_history() -> None:
    rows, positions, targets = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros((1, 4), np.float32)
    assert search(rows, positions, targets, 3)[0].shape == (1, 0)


def test_times_of_every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dare_core.studies.search_stage.USERS_BYTES", 2**20)
    for threads in (1, 2):
        times = measure(200, (8, 4), rounds=3, threads=threads)
        assert [(t.length, t.size) for t in times] == [(200, 8), (200, 4)]
        assert all(t.searching.shape == t.reading.shape == (3,) for t in times)
        assert all((t.searching > 0).all() and (t.reading > 0).all() for t in times)


def test_reading_reads_every_number() -> None:
    numbers = np.arange(1_001, dtype=np.float32)
    assert add_up(numbers) == numbers.sum()
