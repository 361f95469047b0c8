"""Row-wise Adam equals dense Adam, and the way a row coasts equals the sum that it stands for."""

import numba
import numpy as np
import pytest
import torch
from conftest import random_batch

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.data.samples import Batch
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import MODELS, build_model
from dare_core.training.row_adam import BETAS, EPSILON, Distinct, RowAdam, coast, gauss_rules, make_schedule

ITEM = "embeddings.sets.attention.tables.item"
COUNTS = Counts(items=40, categories=6, history=12)
SCHEDULE = make_schedule(6_100, 0.01, np.dtype(np.float64))


def direct_way(m: float, root: np.ndarray, step: int, gap: int) -> np.ndarray:
    """The sum as dense Adam makes it, a step at a time."""
    b1, b2 = BETAS
    total = np.zeros_like(root)
    for j in range(1, gap + 1):
        second = root**2 * b2**j / (1 - b2 ** (step + j))
        total += 0.01 * m * b1**j / (1 - b1 ** (step + j)) / (np.sqrt(second) + EPSILON)
    return total


@pytest.mark.parametrize("step", [1, 2, 5, 20, 47, 48, 100, 127, 128, 300, 1_000, 5_000])
def test_coasting_equals_the_sum(step: int) -> None:
    root = np.logspace(-12, 0, 49)
    way = np.empty_like(root)
    for gap in (1, 2, 7, 9, 10, 17, 25, 26, 60, 150, 399, 400, 401, 1_000):
        coast(way, np.full_like(root, 0.3), root, step, gap, SCHEDULE)
        assert np.abs(way / direct_way(0.3, root, step, gap) - 1).max() < 1e-9, gap


def test_gauss_rules_integrate_polynomials() -> None:
    rng = np.random.default_rng(0)
    points, measure = rng.random((3, 50)) + 1, rng.random((3, 50))
    nodes, weights = gauss_rules(measure, points, 4)
    for power in range(8):
        exact = (measure * points**power).sum(1)
        assert np.allclose((weights * nodes**power).sum(1), exact, rtol=1e-12)
    assert not np.allclose((weights * nodes**8).sum(1), (measure * points**8).sum(1), rtol=1e-12)


def test_distinct_ids() -> None:
    rng = np.random.default_rng(0)
    finder = Distinct(1_000)
    for _ in range(3):  # its scratch memory is clean again
        ids = {"target": torch.from_numpy(rng.integers(0, 1_000, (5, 3))),
               "behaviour": torch.from_numpy(rng.integers(0, 1_000, (5, 40)))}  # fmt: skip
        rows, ranks = finder(ids)
        assert np.array_equal(rows, np.unique(np.concatenate([ids[side].numpy().ravel() for side in ids])))
        for side, numbers in ids.items():
            assert np.array_equal(rows[ranks[side].numpy()], numbers.numpy())


def both(name: str, double: bool = True) -> tuple:
    """The same model twice, with dense Adam on everything, and with row-wise Adam on its tables."""
    config = TrainingConfig(initial_scale=0.3)
    models = [build_model(ModelConfig(name=name, size=4, top_k=5), COUNTS, config, 1) for _ in range(2)]
    models = [model.double() if double else model for model in models]
    dense = torch.optim.Adam(models[0].parameters(), lr=0.01)
    rest = torch.optim.Adam(models[1].dense_parameters(), lr=0.01)
    return *models, dense, rest, RowAdam(models[1].table_sets(), 0.01, 2_000)


def one_step(model, batch: Batch, scale: float) -> None:
    """Forward and backward, the gradient scaled."""
    (sum(model.losses(model.compute(batch))) * scale).backward()
    model.embeddings.combine_gradients()


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_as_with_dense_adam(name: str) -> None:
    """Each step reads a part of the rows only; what is not read is compared too, at the end."""
    dense_model, model, dense, rest, rows = both(name)
    for step in range(12):
        batch = random_batch(histories=2, items=40 if step % 5 == 0 else 6, shortest=4, seed=step)
        dense.zero_grad()
        one_step(dense_model, batch, 1.0)
        dense.step()
        rest.zero_grad()
        rows.prepare(batch)
        one_step(model, batch, 1.0)
        rest.step()
        rows.step()
    rows.catch_up()
    for (key, weight), again in zip(dense_model.state_dict().items(), model.state_dict().values(), strict=True):
        # What BatchNorm takes away, as a constant feature, has no gradient but rounding errors: Adam enlarges them.
        exact = key.endswith((".tables.item", ".tables.category"))
        assert torch.allclose(weight, again, rtol=0, atol=1e-10 if exact else 1e-6), key


def table_run(gradients: np.ndarray, ids: list[np.ndarray], kind: type, check: int = 1) -> float:
    """Largest difference of weights from dense Adam: `gradients` (T, U, d) on rows ids[t] (each U, or empty)."""
    model = build_model(ModelConfig(name="TWIN", size=gradients.shape[2]), COUNTS, None, 1)
    model = model.double() if kind is np.float64 else model
    tables = model.table_sets()[0]
    dense_table = tables.tables["item"].detach().clone().requires_grad_()
    dense = torch.optim.Adam([dense_table], lr=0.01)
    rows = RowAdam([tables], 0.01, len(gradients))
    worst = 0.0
    for at, chosen in enumerate(ids):
        none = torch.zeros(1, 1, dtype=torch.long)
        items = torch.from_numpy(chosen)[None]
        rows.prepare(Batch(none, none, items, torch.zeros_like(items)))
        excerpt = tables.excerpts["item"]
        gradient = torch.from_numpy(gradients[at].astype(kind))
        excerpt.leaf.grad = torch.zeros_like(excerpt.leaf)
        excerpt.leaf.grad[excerpt.ranks["behaviour"][0].long()] = gradient[: len(chosen)]
        dense_table.grad = torch.zeros_like(dense_table)
        dense_table.grad[chosen] = gradient[: len(chosen)]
        now = dense_table.detach()[excerpt.rows]
        worst = max(worst, float((excerpt.leaf.detach() - now).abs().max()))
        dense.step()
        rows.step()
        if at % check == 0:
            rows.catch_up()
            worst = max(worst, float((tables.tables["item"] - dense_table).detach().abs().max()))
    rows.catch_up()
    return max(worst, float((tables.tables["item"] - dense_table).detach().abs().max()))


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 1e-10])
def test_equal_to_dense_adam(kind: type, size: float) -> None:
    """Gradients from far above Adam's eps to far below it; 100 steps, as required within 1e-6."""
    rng = np.random.default_rng(0)
    ids = [rng.permutation(40)[:3] + 1 for _ in range(100)]
    gradients = size * rng.standard_normal((100, 3, 4))
    assert table_run(gradients, ids, kind, check=10_000) < (1e-6 if kind is np.float32 else 1e-10)


def test_rows_untouched_for_long() -> None:
    """2,000 steps on few rows: some touched at step 1 alone, some late, some every few hundred steps."""
    rng = np.random.default_rng(0)
    ids = [np.array([1 + t % 3]) for t in range(2_000)]
    for t, extra in {0: 10, 1: 11, 30: 12, 31: 13, 400: 12, 431: 10, 700: 13, 1_500: 14, 1_999: 11}.items():
        ids[t] = np.append(ids[t], extra)
    scale = 10.0 ** rng.uniform(-9, 0, (2_000, 1, 1))
    gradients = scale * rng.standard_normal((2_000, 2, 4))
    assert table_run(gradients, ids, np.float64, check=10_000) < 1e-10
    assert table_run(gradients, ids, np.float64, check=37) < 1e-10, "catching up in between changes nothing"
    assert table_run(gradients, ids, np.float32, check=10_000) < 1e-5


def test_rows_do_not_depend_on_the_number_of_threads() -> None:
    most, results = numba.get_num_threads(), []
    for threads in (1, most):
        numba.set_num_threads(threads)
        model, untrained = (build_model(ModelConfig(size=4), Counts(2_000, 50, 12), None, 1) for _ in range(2))
        rows = RowAdam(model.table_sets(), 0.01, 40)
        for step in range(10):
            batch = random_batch(histories=60, items=2_000, categories=50, seed=step)
            rows.prepare(batch)
            for tables in model.table_sets():
                for excerpt in tables.excerpts.values():
                    excerpt.leaf.grad = excerpt.leaf.detach().clone()
            rows.step()
        rows.catch_up()
        results.append(model.state_dict())
    assert all(torch.equal(weight, results[1][name]) for name, weight in results[0].items())
    assert not torch.equal(results[0][ITEM], untrained.state_dict()[ITEM])


def test_a_wrong_way_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sensitivity: without the way that untouched rows coast, the comparison fails."""
    monkeypatch.setattr(RowAdam, "catch_up", lambda self: None)
    rng = np.random.default_rng(0)
    ids = [rng.permutation(40)[:3] + 1 for _ in range(100)]
    assert table_run(rng.standard_normal((100, 3, 4)), ids, np.float64, check=10_000) > 1e-3
