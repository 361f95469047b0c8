"""Parity with numbers that the authors' published code computed, in float64."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dare_core.embeddings import Batch
from dare_core.errors import InputError
from dare_core.models import ClickModel
from dare_core.official import TIME_ROWS, build_official, labelled_loss, load_weights, our_names
from dare_core.search import PADDING_SCORE, TopK

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
    output = model(batch)
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
    published = model(batch).weights[:, 0]
    short = batch.valid.sum(1) < model.search.top_k
    assert short.any()
    assert (published * ~batch.valid).sum(1)[short].min() > 0
    model.search = TopK(model.search.top_k)
    ours = model(batch).weights[:, 0]
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


def test_weights_of_another_model_are_refused() -> None:
    expected = dict(np.load(FOLDER / "dare.npz"))
    weights = {k[6:]: full_table(v, k) for k, v in expected.items() if k.startswith("state/")}
    del weights["main_mlp.1.weight"]
    with pytest.raises(InputError, match="lack|shape"):
        load_weights(build_official(config_of("dare")), weights)
