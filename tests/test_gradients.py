"""The gradient recorder: equal to two mirrored tables, and without any effect on training."""

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log, random_batch

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import make_samples
from dare_core.models.click_model import ClickModel
from dare_core.models.embeddings import FIELDS, ROLES, Counts
from dare_core.models.zoo import MODELS, build_model
from dare_core.training.gradients import GradientRecorder
from dare_core.training.loop import train
from dare_core.training.runs import counts_of

COUNTS = Counts(items=40, categories=6, history=12)
MODULES = ("attention", "representation")
MIRRORED = ("representation", "target")


def twin_and_mirror():
    """TWIN, and DARE holding TWIN's tables twice: two mirrored tables that stand for one."""
    config = TrainingConfig(initial_scale=0.3)
    twin = build_model(ModelConfig(name="TWIN", size=4, top_k=5), COUNTS, config, 1).double()
    mirror = build_model(ModelConfig(name="DARE", size=4, top_k=5), COUNTS, config, 1).double()
    state = twin.state_dict()
    mirror.load_state_dict(
        {k: state[k.replace("sets.attention", "sets.shared").replace("sets.representation", "sets.shared")]
         for k in mirror.state_dict()}
    )  # fmt: skip
    return twin, mirror


def test_split_equals_two_mirrored_tables() -> None:
    twin, mirror = twin_and_mirror()
    optimisers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (twin, mirror)]
    recorder = GradientRecorder(twin)
    for step in range(5):
        batch = random_batch(shortest=4, seed=step)
        for built in (twin, mirror):
            output = built.compute(batch)
            if built is twin:
                recorder.listen(output.vectors, batch)
            built.zero_grad()
            sum(built.losses(output)).backward()
        for field in FIELDS:
            parts = {m: recorder.table_gradient(m, field) for m in ("attention", "representation")}
            for module, part in parts.items():
                own = mirror.embeddings.table((module, "target"), field).grad
                assert torch.allclose(part, own, atol=1e-13), (step, field, module)
            whole = twin.embeddings.table(("attention", "target"), field).grad
            assert torch.allclose(parts["attention"] + parts["representation"], whole, atol=1e-13)
            # Both mirrored tables get the sum, so that they stay equal.
            for module in parts:
                mirror.embeddings.table((module, "target"), field).grad = whole.clone()
        recorder.record()
        for optimiser in optimisers:
            optimiser.step()
    assert len(recorder.result().of("mean_cosine", "category")) == 5


def test_statistics_against_rows_by_hand() -> None:
    twin, _ = twin_and_mirror()
    recorder = GradientRecorder(twin)
    batch = random_batch(shortest=4)
    output = twin.compute(batch)
    recorder.listen(output.vectors, batch)
    sum(twin.losses(output)).backward()
    recorder.record()
    record = recorder.result()
    attention = recorder.table_gradient("attention", "category").numpy()
    representation = recorder.table_gradient("representation", "category").numpy()
    cosines, norms = [], []
    for a, r in zip(attention, representation, strict=True):
        if a.any() or r.any():
            norms.append((np.linalg.norm(a), np.linalg.norm(r)))
        if a.any() and r.any():
            cosines.append(a @ r / np.linalg.norm(a) / np.linalg.norm(r))
    assert np.isclose(record.of("attention_norm", "category")[0], np.mean([n[0] for n in norms]))
    assert np.isclose(record.of("representation_norm", "category")[0], np.mean([n[1] for n in norms]))
    assert np.isclose(record.of("mean_cosine", "category")[0], np.mean(cosines))
    assert np.isclose(record.of("negative_share", "category")[0], np.mean(np.array(cosines) < 0))
    assert record.of("rows", "category")[0] == len(norms)
    assert record.cosine_histogram[1].sum() == len(cosines)


@pytest.mark.parametrize("name", MODELS)
def test_the_split_adds_up_to_the_tables_gradient(name: str) -> None:
    """Behind maps too: rows are heard before any map."""
    config = TrainingConfig(initial_scale=0.3)
    built = build_model(ModelConfig(name=name, size=4, top_k=5), COUNTS, config, 1).double()
    batch = random_batch(shortest=4)
    recorder = GradientRecorder(built)
    output = built.compute(batch)
    recorder.listen(output.vectors, batch)
    sum(built.losses(output)).backward()
    recorder.record()
    for field in built.embeddings.fields:
        tables = {id(built.embeddings.table(role, field)): built.embeddings.table(role, field) for role in ROLES}
        parts = [recorder.table_gradient(m, field) for m in ("attention", "representation")]
        leaves = [mirror[field] for mirror in built.embeddings.mirrors.values()]
        if len(tables) == 1:
            whole = sum(leaf.grad for leaf in [*tables.values(), *leaves])
            assert torch.allclose(parts[0] + parts[1], whole, atol=1e-13)
        else:
            whole = sum(table.grad.square().sum() for table in tables.values())
            assert len(tables) > 2 or torch.allclose(sum(p.square().sum() for p in parts), whole)
        assert bool(parts[0].any()) == (name != "SDIM") and bool(parts[1].any())


def test_equalised_gradients_against_two_mirrored_tables() -> None:
    """The published way: two tables with equal values, attention's gradient rescaled, both get the sum."""
    config, sizes = TrainingConfig(initial_scale=0.3), {"size": 4, "top_k": 5}
    built = build_model(ModelConfig(name="equalised gradients", **sizes), COUNTS, config, 1).double()
    twin = build_model(ModelConfig(name="TWIN", **sizes), COUNTS, config, 1).double()
    mirror = build_model(ModelConfig(name="DARE", **sizes), COUNTS, config, 1).double()
    state = built.state_dict()
    assert set(state) == set(twin.state_dict()), "one shared table: no weights of its own"
    mirror.load_state_dict(
        {k.replace("shared", n): v for k, v in state.items() for n in ("attention", "representation")}
    )
    optimisers = [torch.optim.Adam(m.parameters(), lr=0.01) for m in (built, mirror)]
    for step in range(4):
        batch = random_batch(shortest=4, seed=step)
        for model in (built, mirror):
            model.zero_grad()
            sum(model.losses(model.compute(batch))).backward()
            model.embeddings.combine_gradients()
        for field in FIELDS:
            attention, representation = (mirror.embeddings.table((m, "target"), field).grad for m in MODULES)
            both = attention * (representation.norm() / attention.norm()) + representation
            for module in MODULES:
                mirror.embeddings.table((module, "target"), field).grad = both.clone()
            ours = built.embeddings.table(("attention", "target"), field).grad
            assert torch.allclose(ours, both, atol=1e-13), (step, field)
        for optimiser in optimisers:
            optimiser.step()
    weights = built.embeddings.table(("attention", "target"), "item"), mirror.embeddings.table(MIRRORED, "item")
    assert torch.allclose(*weights, atol=1e-12)


def test_recording_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit: a recorder listens to the parts of the graph, so both are trained part by part."""
    monkeypatch.setattr(ClickModel, "in_one_pass", lambda self: False)
    log = make_log()
    splits = make_samples(log, SMALL_SAMPLES, 1)
    results = []
    for recorded in (False, True):
        config = RunConfig(
            log="by_hand",
            samples=SMALL_SAMPLES,
            model=ModelConfig(name="TWIN", size=4, top_k=5),
            training=TrainingConfig(batch_size=60, epochs=1, record_gradients=recorded),
        )
        counts = counts_of(log, SMALL_SAMPLES)
        trained = train(config, splits, lambda c=config, n=counts: build_model(c.model, n, c.training, 1), False)
        results.append(trained)
    for (name, plain), listened in zip(
        results[0].model.state_dict().items(), results[1].model.state_dict().values(), strict=True
    ):
        assert torch.equal(plain, listened), name
    assert np.array_equal(results[0].test_probability, results[1].test_probability)
    assert results[0].gradients is None and results[1].gradients is not None
