"""Invariants that every model keeps."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log, random_batch

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.models.click_model import TopK, masked_softmax
from dare_core.models.embeddings import FIELDS, ROLES, Counts, Tables
from dare_core.models.zoo import MODELS, build_model, model_spec, model_table
from dare_core.training.loop import train
from dare_core.training.runs import counts_of

COUNTS = Counts(items=40, categories=6, history=12)
LARGE = TrainingConfig(initial_scale=0.5)  # weights large enough that scores differ


def model(name: str, top_k: int = 4, seed: int = 1, **sizes: int):
    return build_model(ModelConfig(name=name, size=5, top_k=top_k, **sizes), COUNTS, LARGE, seed).double()


def tables_of(built):
    """Every set of embedding tables, a search's own included."""
    return [module.tables for module in built.modules() if isinstance(module, Tables)]


def backward(built, output) -> None:
    """The two losses' gradients, combined as before a step of training."""
    main, auxiliary = built.losses(output)
    (main + auxiliary).backward()
    built.embeddings.combine_gradients()


WITH_TOP_K = [name for name in MODELS if hasattr(model(name).search, "top_k")]


@pytest.mark.parametrize("name", MODELS)
def test_padding_has_no_weight_and_no_gradient(name: str) -> None:
    built, batch = model(name), random_batch(shortest=1)
    output = built.compute(batch)
    padding = ~batch.valid.unsqueeze(1)
    assert not (output.weights * padding).any()
    sums = output.weights.sum(-1)
    if name in WITH_TOP_K:
        assert torch.allclose(sums, torch.ones_like(sums))
        assert not (output.weights > 0).sum(-1).gt(4).any() or name == "TWIN-V2", "no more than K (V2: K clusters)"
    else:
        assert (sums < 1 + 1e-12).all()
    backward(built, output)
    for tables in tables_of(built):
        for field in ("item", "category"):
            gradient = tables[field].grad
            assert gradient is not None and not gradient[0].any()


@pytest.mark.parametrize("name", MODELS)
def test_content_at_padding_does_not_matter(name: str) -> None:
    built, batch = model(name).eval(), random_batch(shortest=1)
    before = built.compute(batch).logits
    for tables in tables_of(built):
        with torch.no_grad():
            tables["item"][0] += 7
            tables["category"][0] -= 3
    assert torch.equal(built.compute(batch).logits, before)


@pytest.mark.parametrize("name", MODELS)
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    built, batch = model(name), random_batch()
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    tensors = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    shuffled = type(batch)(**{name: tensor[order] for name, tensor in tensors.items() if tensor is not None})
    assert torch.allclose(built.compute(batch).logits[order], built.compute(shuffled).logits, atol=1e-10)


@pytest.mark.parametrize("name", WITH_TOP_K)
def test_retrieving_everything_is_full_attention(name: str) -> None:
    built, batch = model(name, top_k=12), random_batch()
    output = built.compute(batch)
    full = masked_softmax(output.scores, batch.valid.unsqueeze(1).expand_as(output.scores))
    assert torch.allclose(output.weights, full)


@pytest.mark.parametrize("name", MODELS)
def test_short_and_empty_histories_work(name: str) -> None:
    built, batch = model(name, top_k=10).eval(), random_batch(shortest=0, seed=3)
    batch.history_items[0] = 0
    batch.history_categories[0] = 0
    output = built.compute(batch)
    assert torch.isfinite(output.logits).all()
    assert not output.weights[0].any()


@pytest.mark.parametrize("name", MODELS)
def test_candidates_of_a_history_do_not_see_one_another(name: str) -> None:
    built, batch = model(name).eval(), random_batch()
    single = type(batch)(
        batch.target_items[:, 1:2],
        batch.target_categories[:, 1:2],
        batch.history_items,
        batch.history_categories,
    )
    assert torch.allclose(built.compute(batch).logits[:, 1:2], built.compute(single).logits, atol=1e-12)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_reach_exactly_the_tables_of_the_model(name: str) -> None:
    built, batch = model(name), random_batch(shortest=6)
    output = built.compute(batch)
    backward(built, output)
    for parameter_name, parameter in built.named_parameters():
        free = parameter_name == "score.out.bias"  # a constant added to every score: softmax takes it out again
        assert parameter.grad is not None and (free or parameter.grad.any()), parameter_name


@pytest.mark.parametrize("name", MODELS)
def test_gradients_come_from_the_roles_of_each_table(name: str) -> None:
    """Attention is trained where there is a score; a head's loss reaches only what that head reads."""
    built, batch = model(name), random_batch(shortest=6)
    built.embeddings.apart = True
    output = built.compute(batch)
    main, auxiliary = built.losses(output)
    roles = {role: list(rows.values()) for role, rows in output.vectors.rows.items()}
    for role, rows in roles.items():
        gradients = torch.autograd.grad(main + auxiliary, rows, retain_graph=True, allow_unused=True)
        trained = role[0] == "representation" or name != "SDIM"
        assert all((g is not None and bool(g.any())) == trained for g in gradients), role
    own = list(built.search.parameters())
    if own:
        assert all(g is None for g in torch.autograd.grad(main, own, retain_graph=True, allow_unused=True))
        tables = built.embedding_parameters()[: -len(own)]
        assert all(g is None for g in torch.autograd.grad(auxiliary, tables, allow_unused=True))


def test_dare_with_tied_tables_is_twin() -> None:
    """Loss and gradients: DARE whose two sets of tables hold TWIN's values."""
    twin, dare, batch = model("TWIN"), model("DARE"), random_batch(shortest=6)
    state = twin.state_dict()
    dare.load_state_dict(
        {k: state[k.replace("sets.attention", "sets.shared").replace("sets.representation", "sets.shared")]
         for k in dare.state_dict()}
    )  # fmt: skip
    losses = []
    for built in (twin, dare):
        main, auxiliary = built.losses(built.compute(batch))
        (main + auxiliary).backward()
        losses.append(main + auxiliary)
    assert torch.allclose(losses[0], losses[1], atol=1e-14)
    for field in FIELDS:
        both = sum(dare.embeddings.table((module, "target"), field).grad for module in ("attention", "representation"))
        assert torch.allclose(twin.embeddings.table(("attention", "target"), field).grad, both, atol=1e-14)


def test_top_k_retrieves_the_best_scores() -> None:
    batch = random_batch(histories=3, candidates=2, length=7, shortest=7)
    scores = torch.randn(3, 2, 7, generator=torch.Generator().manual_seed(0))
    keep = TopK(3).retrieved(scores, batch.valid.unsqueeze(1))
    assert (keep.sum(-1) == 3).all()
    assert (scores.masked_fill(~keep, 9).amin(-1) >= scores.masked_fill(keep, -9).amax(-1)).all()


@pytest.mark.parametrize("name", MODELS)
def test_attention_size_is_its_own_only_with_tables_of_its_own(name: str) -> None:
    if name.startswith(("DARE", "TWIN-4E", "three")):
        built = model(name, attention_size=2)
        for role in ROLES:
            size = 2 if role[0] == "attention" else 5
            assert built.embeddings.table(role, "item").shape == (41, size)
        assert torch.isfinite(built.compute(random_batch()).logits).all()
    else:
        with pytest.raises(InputError, match="one table for attention and representation: attention_size"):
            model(name, attention_size=2)


def test_a_search_of_its_own_needs_the_auxiliary_loss() -> None:
    with pytest.raises(InputError, match="auxiliary"):
        build_model(ModelConfig(name="SIM (soft)"), COUNTS, TrainingConfig(auxiliary_loss=False))


@pytest.mark.parametrize(
    ("name", "maps", "biases"),
    [
        ("TWIN (w/ proj.)", 12, False),
        ("projection (after concatenation)", 4, True),
        ("projection (two linear)", 2, True),
        ("projection (MLP with one hidden layer)", 6, True),
        ("projection (MLP with two hidden layers)", 6, True),
        ("projection (no item)", 4, False),
        ("projection (only position)", 2, False),
        ("projection (only category)", 2, False),
        ("projection (only item)", 2, False),
        ("large embedding with small output", 6, False),
    ],
)
def test_number_of_maps_and_their_initial_values(name: str, maps: int, biases: bool) -> None:
    def linears(map_initial: str):
        config = TrainingConfig.model_validate({"map_initial": map_initial})
        built = build_model(ModelConfig(name=name, size=16), COUNTS, config, seed=2)
        assert len(built.embeddings.maps.layers) == maps
        return [m for m in built.embeddings.maps.modules() if isinstance(m, torch.nn.Linear)]

    for layer in linears("published"):
        assert 0.007 < float(layer.weight.detach().std()) < 0.013
        assert (layer.bias is not None) == biases
    for layer in linears("xavier"):
        expected = (2 / (layer.in_features + layer.out_features)) ** 0.5
        assert 0.8 < float(layer.weight.detach().std()) / expected < 1.25
        assert layer.bias is None or not layer.bias.any()
    for layer in linears("identity"):
        assert torch.equal(layer.weight, torch.eye(layer.out_features, layer.in_features))


def test_identity_maps_are_twin_at_the_start() -> None:
    config = TrainingConfig(initial_scale=0.5, map_initial="identity")
    twin = model("TWIN")
    for name in ("TWIN (w/ proj.)", "projection (after concatenation)", "projection (only item)"):
        built = build_model(ModelConfig(name=name, size=5, top_k=4), COUNTS, config, 1).double()
        built.load_state_dict(built.state_dict() | twin.state_dict())
        assert torch.allclose(built.compute(random_batch()).logits, twin.compute(random_batch()).logits)


def test_map_initial_moves_only_the_maps() -> None:
    states = [
        build_model(
            ModelConfig(name="TWIN (w/ proj.)", size=4), COUNTS, TrainingConfig(map_initial=rule), 3
        ).state_dict()
        for rule in ("published", "identity")
    ]
    for key, weight in states[0].items():
        assert torch.equal(weight, states[1][key]) != key.startswith("embeddings.maps"), key


def test_table_of_models_at_the_size_of_taobao() -> None:
    counts = Counts(items=4_068_790, categories=9_407, history=200)
    rows = {row["model"]: row for row in model_table(counts, 16)}
    assert list(rows) == list(MODELS)
    tables = 16 * (4_068_791 + 9_408 + 201)
    heads = rows["TWIN"]["parameters"] - tables
    assert rows["DARE"]["parameters"] == 2 * tables + heads
    assert rows["three tables"]["parameters"] == 3 * tables + heads
    assert rows["TWIN-4E"]["parameters"] == 4 * tables + heads
    assert rows["TWIN (w/ proj.)"]["parameters"] == tables + heads + 12 * 16 * 16
    assert rows["equalised gradients"]["parameters"] == rows["ETA"]["parameters"] == rows["TWIN"]["parameters"]
    assert rows["TWIN"]["multiplications a behaviour"] == 48
    built = build_model(ModelConfig(name="SIM (soft)", size=16), COUNTS)
    small = {row["model"]: row["parameters"] for row in model_table(COUNTS, 16)}
    assert small["SIM (soft)"] == sum(p.numel() for p in built.parameters())


@pytest.mark.parametrize("name", MODELS)
def test_every_model_trains_and_is_reproducible(name: str) -> None:
    log = make_log()
    splits, counts = make_samples(log, SMALL_SAMPLES, 1), counts_of(log, SMALL_SAMPLES)
    config = RunConfig(
        log="by_hand",
        samples=SMALL_SAMPLES,
        model=ModelConfig(name=name, size=4, top_k=5),
        training=TrainingConfig(batch_size=60, epochs=2, validations_per_epoch=1, record_gradients=True),
    )
    results = [
        train(config, splits, lambda: build_model(config.model, counts, config.training, 1), False) for _ in range(2)
    ]
    assert results[0].history[-1].train_loss < results[0].history[0].train_loss
    assert np.isfinite(results[0].test_probability).all()
    assert np.array_equal(results[0].test_probability, results[1].test_probability)
    assert results[0].gradients is not None


def test_initial_values() -> None:
    config = ModelConfig(name="DIN", size=16)
    ours = build_model(config, COUNTS, seed=3)
    again = build_model(config, COUNTS, seed=3)
    other = build_model(config, COUNTS, seed=4)
    published = build_model(config, COUNTS, TrainingConfig(official=("initialise_all",)), seed=3)
    for (name, a), b, c in zip(ours.named_parameters(), again.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b), name
        if a.numel() > 10 and a.dim() > 1:
            assert not torch.equal(a, c), name
            assert 0.005 < float(a.detach().std()) < 0.02, name
    assert torch.equal(ours.main_head[0].weight, torch.ones(96))
    assert ours.main_head[2].weight.item() == 0.25
    assert float(published.main_head[0].weight.detach().abs().max()) < 0.1
    assert abs(published.main_head[2].weight.item()) < 0.1


def test_unknown_model_names_the_nearest() -> None:
    with pytest.raises(InputError, match="'TWIN'"):
        model("twn")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("projection (only itm)", "projection (only item)"), ("three table", "three tables"), ("dare", "DARE")],
)
def test_an_unknown_name_is_refused_with_the_nearest(typed: str, meant: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"Did you mean {meant!r}?")):
        model_spec(typed)
