"""Parity with numbers that the authors' published code computed, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import random_batch

from dare_core.config import ModelConfig, TrainingConfig
from dare_core.data.samples import Batch
from dare_core.errors import InputError
from dare_core.models.click_model import PADDING_SCORE, ClickModel, TopK
from dare_core.models.embeddings import Counts, concatenated
from dare_core.models.zoo import MODELS, build_model
from dare_core.published.config import TIME_ROWS, published_arguments
from dare_core.published.model import build_official, labelled_loss, load_weights, our_names, published_weights

FOLDER = Path(__file__).parent / "official"
VARIANTS = (
    "dare",
    "dare_small_attention",
    "twin",
    "din",
    "twin_4e",
    "twin_projection",
    "twin_projection_per_field",
    "dare_short_histories",
)
TOLERANCE = 1e-8


def full_table(rows: np.ndarray, name: str) -> torch.Tensor:
    """Position tables are stored without the rows that no sample of the batch reads."""
    if "time_id" not in name:
        return torch.from_numpy(rows)
    table = np.zeros((TIME_ROWS, rows.shape[1]), rows.dtype)
    table[: len(rows)] = rows
    return torch.from_numpy(table)


def config_of(variant: str) -> dict[str, object]:
    """The published constructor's arguments."""
    return json.loads((FOLDER / f"{variant}.json").read_text())


def load(variant: str) -> tuple[ClickModel, Batch, torch.Tensor, dict[str, np.ndarray]]:
    """Model in float64 with the published weights, batch, labels, expected numbers."""
    expected = dict(np.load(FOLDER / f"{variant}.npz"))
    batch = np.load(FOLDER / ("batch_short_histories.npz" if "short" in variant else "batch.npz"))
    weights = {k[6:]: full_table(v, k) for k, v in expected.items() if k.startswith("state/")}
    for name, same in ((k[5:], str(v)) for k, v in expected.items() if k.startswith("same/")):
        weights[name] = weights[same]
    model = build_official(config_of(variant)).double()
    load_weights(model, weights)
    ids = {name: torch.from_numpy(batch[name]) for name in batch.files}
    return (
        model,
        Batch(
            ids["item"].unsqueeze(1),
            ids["category"].unsqueeze(1),
            ids["history_items"],
            ids["history_categories"],
        ),
        ids["label"],
        expected,
    )


def distance(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float((ours.detach() - torch.from_numpy(theirs)).abs().max())


def forward(model: ClickModel, batch: Batch, labels: torch.Tensor):
    output = model.compute(batch)
    main = labelled_loss(output.logits[:, 0], labels)
    auxiliary = labelled_loss(output.auxiliary_logits[:, 0], labels)
    return output, main + auxiliary, auxiliary


@pytest.mark.parametrize("variant", VARIANTS)
def test_forward_and_gradients_match(variant: str) -> None:
    model, batch, labels, expected = load(variant)
    output, loss, auxiliary = forward(model, batch, labels)
    scores = output.scores[:, 0].masked_fill(~batch.valid, PADDING_SCORE)
    assert distance(scores, expected["scores"]) < TOLERANCE
    assert distance(output.features[:, 0], expected["features"]) < TOLERANCE
    probability = torch.softmax(output.logits[:, 0], -1) + 1e-8
    assert distance(probability, expected["probability"]) < TOLERANCE
    assert distance(output.probability[:, 0], expected["probability"][:, 0]) < TOLERANCE
    assert distance(loss, expected["loss"]) < TOLERANCE
    assert distance(auxiliary, expected["auxiliary_loss"]) < TOLERANCE
    loss.backward()
    parameters = dict(model.named_parameters())
    names = our_names(model)
    gradients = {k[5:]: v for k, v in expected.items() if k.startswith("grad/")}
    assert {names[name] for name in gradients} == set(parameters), "every weight has a gradient to compare"
    for name, theirs in gradients.items():
        ours = parameters[names[name]].grad
        assert ours is not None
        assert distance(ours[: len(theirs)], theirs) < TOLERANCE, name
        assert not ours[len(theirs) :].any(), name


def test_default_does_not_retrieve_padding_where_the_published_code_does() -> None:
    model, batch, labels, expected = load("dare_short_histories")
    assert isinstance(model.search, TopK)
    published = model.compute(batch).weights[:, 0]
    short = batch.valid.sum(1) < model.search.top_k
    assert short.any()
    assert (published * ~batch.valid).sum(1)[short].min() > 0
    model.search = TopK(model.search.top_k)
    ours = model.compute(batch).weights[:, 0]
    assert not (ours * ~batch.valid).any()
    assert torch.allclose(ours.sum(1), torch.ones(len(ours), dtype=ours.dtype))


@pytest.mark.parametrize("mistake", ["swap labels", "evaluation mode", "one scale", "swap fields"])
def test_parity_notices_mistakes(mistake: str) -> None:
    model, batch, labels, expected = load("dare")
    if mistake == "swap labels":
        labels = 1 - labels
    elif mistake == "evaluation mode":
        for head in (model.main_head, model.auxiliary_head):
            assert head is not None
            head.eval()
    elif mistake == "one scale":
        model.score.forward = lambda q, k: sum(  # type: ignore[method-assign, assignment]
            q[f] @ k[f].transpose(-1, -2) / np.sqrt(24) for f in q
        )
    else:
        batch = Batch(batch.target_items, batch.target_categories * 0 + 1, batch.history_items,
                      batch.history_categories)  # fmt: skip
    _, loss, _ = forward(model, batch, labels)
    assert distance(loss, expected["loss"]) > 1e-6


@pytest.mark.parametrize("variant", ["twin_projection", "twin_projection_per_field"])
def test_parity_notices_a_transposed_projection(variant: str) -> None:
    model, batch, labels, expected = load(variant)
    maps = model.embeddings.maps
    assert maps is not None
    name = next(name for name, weight in maps.named_parameters() if weight.dim() == 2)
    with torch.no_grad():
        weight = maps.get_parameter(name)
        weight.copy_(weight.T.clone())
    output, loss, _ = forward(model, batch, labels)
    assert distance(output.scores[:, 0].masked_fill(~batch.valid, PADDING_SCORE), expected["scores"]) > 1e-6
    assert distance(loss, expected["loss"]) > 1e-9


def test_weights_of_another_model_are_refused() -> None:
    weights = published_weights(load("dare")[0])
    assert set(weights) == set(our_names(load("dare")[0]))
    load_weights(build_official(config_of("dare")), weights)
    odd = {
        "lack": {k: v for k, v in weights.items() if k != "main_mlp.1.weight"},
        "shape": weights | {"main_mlp.1.weight": torch.zeros(200, 71)},
        "has not": weights | {"mlp_for_attention_of_target.weight": torch.zeros(24, 24)},
        "shares": weights | {"item_id_embedding_layer_for_attention_of_behavior.weight": torch.zeros(120, 8)},
    }
    for match, wrong in odd.items():
        with pytest.raises(InputError, match=match):
            load_weights(build_official(config_of("dare")), wrong)


PUBLISHED = [name for name, spec in MODELS.items() if spec.published is not None]


@pytest.mark.parametrize("name", PUBLISHED)
def test_rows_of_the_table_compute_as_their_published_counterpart(name: str) -> None:
    """Every row with a counterpart, its weights carried over by their published names."""
    config, counts = ModelConfig(name=name, size=5, top_k=4), Counts(items=40, categories=6, history=12)
    ours = build_model(config, counts, TrainingConfig(initial_scale=0.5), 1).double()
    arguments = json.loads(json.dumps(published_arguments(config, counts)))
    theirs = build_official(arguments).double()
    weights = published_weights(ours, unused_size=5)
    assert {f"{f}_id_embedding_layer_for_{m}_of_{s}.weight" for f in ("item", "category", "time")
            for m in ("attention", "representation") for s in ("target", "behavior")} <= set(weights)  # fmt: skip
    load_weights(theirs, weights)
    batch = random_batch(shortest=6, candidates=1)
    labels = torch.tensor([1, 0, 0, 1, 0, 1])
    (first, loss, auxiliary), (second, *losses) = forward(ours, batch, labels), forward(theirs, batch, labels)
    for a, b in ((first.scores, second.scores), (first.features, second.features), (loss, losses[0]),
                 (auxiliary, losses[1])):  # fmt: skip
        assert torch.allclose(a, b, atol=1e-12)
    parameters, same = dict(ours.named_parameters()), dict(theirs.named_parameters())
    loss.backward()
    losses[0].backward()
    for key, parameter in parameters.items():
        assert torch.allclose(parameter.grad, same[key].grad[: len(parameter)], atol=1e-12), key


def test_mean_history_joins_the_main_head_alone() -> None:
    model, batch, labels, expected = load("dare")
    averaged = build_official(config_of("dare") | {"use_long_seq_average": True}).double()
    state = {k: v for k, v in model.state_dict().items() if not k.startswith("main_head")}
    averaged.load_state_dict(averaged.state_dict() | state)
    output, _, auxiliary = forward(averaged, batch, labels)
    assert distance(auxiliary, expected["auxiliary_loss"]) < TOLERANCE
    v, h, mean, product, mean_product = output.features[:, 0].chunk(5, -1)
    assert distance(torch.cat([v, h, product], -1), expected["features"]) < TOLERANCE
    rows = output.vectors.used["representation", "behaviour"]
    valid = batch.valid.double()
    by_hand = torch.cat(
        [(r * valid.unsqueeze(-1)).sum(1) / (valid.sum(1, keepdim=True) + 1) for r in rows.values()], -1
    )
    assert torch.allclose(mean, by_hand) and torch.allclose(mean_product, v * mean)


def test_large_embedding_splits_the_score_where_the_published_code_does() -> None:
    def built(size: int) -> ClickModel:
        sizes = dict.fromkeys(("item_embedding_dim", "category_embedding_dim", "time_embedding_dim"), size)
        arguments = config_of("twin") | sizes | {"model_name": "projection_large_emb_small_output"}
        model = build_official(arguments).double()
        model.initialise(0, 0.5)
        return model.double()

    batch = load("twin")[1]
    for size in (16, 24, 32):
        output = built(size).compute(batch)
        q, k = (concatenated(output.vectors.used["attention", side]) for side in ("target", "behaviour"))
        by_hand = (q[..., :-size] @ k[..., :-size].transpose(1, 2)) / (48 - size) ** 0.5
        by_hand = by_hand + (q[..., -size:] @ k[..., -size:].transpose(1, 2)) / size**0.5
        assert torch.allclose(output.scores, by_hand)
        assert output.features.shape[-1] == 3 * 48
    assert built(48).compute(batch).scores.isnan().all(), "nothing is left for the first part"


@pytest.mark.parametrize(
    "change",
    [
        {"model_name": "SASRec"},
        {"unknown": 1},
        {"only_odot": True, "use_cross_feature": False},
        {"attn_func": "learnable"},
        {"model_name": "twin", "attention_item_embedding_dim": 4},
        {"model_name": "projection_two_linear"},
        {"model_name": "projection_with_mlp"},
        {"model_name": "projection_with_mlp", "mlp_hidden_layer": [32, 32, 32]},
        {"use_time_mode": "add"},
        {"short_seq_split": "35:40"},
        {"long_seq_split": "0:20"},
        {"batch_size": 1},
    ],
)
def test_arguments_that_are_not_served_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        build_official(config_of("dare") | change)
