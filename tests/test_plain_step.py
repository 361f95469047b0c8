"""Training as it is against a step of plain PyTorch: `embedding`, `softmax`, `topk`, dense Adam on everything."""

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log, random_batch
from torch import Tensor, nn

from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import Batch, make_samples
from dare_core.evaluation.retrieval import search
from dare_core.models.click_model import ClickModel, masked_softmax
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model
from dare_core.training.loop import batches, read_batches, train, train_step
from dare_core.training.optimizers import Steps
from dare_core.training.runs import counts_of

TRAINING = TrainingConfig(batch_size=60, epochs=1, validations_per_epoch=1, initial_scale=0.3, l2=1e-4)


def plain_mlp(head: nn.Sequential, features: Tensor) -> Tensor:
    """A head's layers, one after the other, as PyTorch has them."""
    values = features.flatten(0, 1)
    for layer in head:
        values = nn.functional.prelu(values, layer.weight) if isinstance(layer, nn.PReLU) else layer(values)
    return values.unflatten(0, features.shape[:2])


def plain_loss(model: ClickModel, batch: Batch, top_k: int) -> Tensor:
    """Both losses of a model with TWIN's score and search, from the formulas of the paper."""
    length = batch.history_items.shape[1]
    ids = {
        "target": (batch.target_items, batch.target_categories, torch.zeros_like(batch.target_items)),
        "behaviour": (
            batch.history_items,
            batch.history_categories,
            torch.arange(length, 0, -1, dtype=torch.int32).expand_as(batch.history_items),
        ),
    }
    used: dict[tuple[str, str], list[Tensor]] = {}
    for role in model.embeddings.assignment:
        for field, numbers in zip(model.embeddings.fields, ids[role[1]], strict=True):
            vector = nn.functional.embedding(numbers, model.embeddings.table(role, field))
            if model.embeddings.maps is not None:
                vector = model.embeddings.maps.layers[model.embeddings.maps.name(role, field)](vector)
            used.setdefault(role, []).append(vector)
    q, k = used["attention", "target"], used["attention", "behaviour"]
    size = q[0].shape[-1]
    scores = (q[0] @ k[0].mT + q[1] @ k[1].mT) / (2 * size) ** 0.5 + q[2] @ k[2].mT / size**0.5
    scores = scores.masked_fill(~batch.valid.unsqueeze(1), -torch.inf)
    columns = scores.topk(min(top_k, length), -1).indices
    retrieved = torch.full_like(scores, -torch.inf).scatter(-1, columns, scores.gather(-1, columns))
    v, rows = (torch.cat(used["representation", side], -1) for side in ("target", "behaviour"))
    total = torch.zeros((), dtype=scores.dtype)
    for kept, head in ((retrieved, model.main_head), (scores, model.auxiliary_head)):
        h = torch.softmax(kept, -1) @ rows
        probability = torch.softmax(plain_mlp(head, torch.cat([v, h, v * h], -1)), -1) + 1e-8
        happened = torch.cat([probability[:, :1, 0], probability[:, 1:, 1]], 1)
        total = total - happened.log().mean()
    return total


@pytest.mark.parametrize("name", ["TWIN", "DARE", "TWIN-4E", "TWIN (w/ proj.)"])
@pytest.mark.parametrize("fewest", [0, 30, 10_000])  # rows of a table from which a step goes by rows
def test_an_epoch_equals_plain_steps(name: str, fewest: int) -> None:
    log = make_log(users=150)
    samples, counts = make_samples(log, SMALL_SAMPLES, 1)["train"], counts_of(log, SMALL_SAMPLES)
    ours, plain = (build_model(ModelConfig(name=name, size=4, top_k=5), counts, TRAINING, 1).double() for _ in "ab")
    parts = list(batches(torch.randperm(len(samples), generator=torch.Generator().manual_seed(1)), 20, False))
    steps = Steps(ours, TRAINING, len(parts), row_wise=True, fewest=fewest)
    groups = [
        {"params": plain.embedding_parameters(), "weight_decay": 0.0},
        {"params": plain.dense_parameters(), "weight_decay": 2 * TRAINING.l2},
    ]
    adam = torch.optim.Adam(groups, lr=TRAINING.learning_rate)
    for part, batch in zip(parts, read_batches(samples, parts), strict=True):
        loss = train_step(ours, batch, steps, TRAINING, None)
        adam.zero_grad()
        expected = plain_loss(plain, samples.batch(part), 5)
        expected.backward()
        adam.step()
        assert float((loss - expected).detach().abs()) < 1e-9
    steps.catch_up()
    assert len(parts) >= 10
    for (key, weight), other in zip(ours.state_dict().items(), plain.state_dict().values(), strict=True):
        assert float((weight - other).abs().max()) < 1e-6, key
    test = random_batch(items=80, categories=8, length=20, shortest=6)
    assert float((ours.eval().compute(test).probability - plain.eval().compute(test).probability).abs().max()) < 1e-6


def test_initialising_leaves_torchs_random_numbers_alone() -> None:
    model = build_model(ModelConfig(name="DIN", size=4), Counts(40, 6, 12), None, 1)
    before, weights = torch.get_rng_state(), [p.detach().clone() for p in model.parameters()]
    model.initialise(1, TrainingConfig().initial_scale)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), weights, strict=True))
    drawn = model.main_head[1].weight[0, 0].item(), model.main_head[1].bias[0].item()
    assert drawn == (-0.012596995569765568, -0.09033764153718948), "as in the first version"


def test_a_score_far_below_the_best_is_retrieved_all_the_same() -> None:
    """Its weight is no number of float32 above 0: exp(-120) underflows."""
    model, batch = build_model(ModelConfig(name="TWIN", size=4, top_k=3), Counts(40, 6, 12)), random_batch(shortest=12)
    scores = torch.full((6, 3, 12), -1_000.0)
    scores[..., 4:7] = torch.tensor([0.0, -120.0, -1.0])
    found = model.search(scores, {}, {}, batch)
    assert found.retrieved[..., 4:7].all() and int(found.retrieved.sum()) == 3 * 6 * 3
    assert not found.weights[..., 5].any()
    assert torch.equal(search(model, batch, True).retrieved, model.compute(batch).retrieved)


def test_threads_are_one_within_and_as_before_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "dare_core.models.click_model.masked_softmax",
        lambda *a: (seen.append(torch.get_num_threads()), masked_softmax(*a))[1],
    )
    log = make_log()
    config = RunConfig(log="by_hand", samples=SMALL_SAMPLES, model=ModelConfig(size=4, top_k=5), training=TRAINING)
    splits, counts = make_samples(log, SMALL_SAMPLES, 1), counts_of(log, SMALL_SAMPLES)
    results = []
    torch.set_num_threads(2)
    try:
        for threads in (1, 2):
            seen.clear()
            results.append(train(config, splits, lambda: build_model(config.model, counts), False, threads=threads))
            assert set(seen) == {threads} and torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert np.allclose(results[0].test_probability, results[1].test_probability, atol=1e-4)
