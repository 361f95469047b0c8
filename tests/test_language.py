"""Language models: what they may see, what they hold, what they start from, and how they are trained."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from dare_core.errors import InputError
from dare_core.language import training as language_training
from dare_core.language.gpt import KINDS, Kind, LanguageModel, LanguageModelConfig, parameter_counts
from dare_core.language.text import Text
from dare_core.language.training import (
    LanguageRunConfig,
    LanguageTrained,
    LanguageTrainingConfig,
    is_flat,
    rate_at,
    train_language,
    validation_windows,
)
from dare_core.studies.settings import LanguageConfig

VOCABULARY = 11


def small(kind: Kind, size: int = 8, seed: int = 1, **changes: int) -> LanguageModel:
    return LanguageModel(LanguageModelConfig(kind=kind, size=size, block=16, **changes), VOCABULARY, seed)


def alphabet(repeats: int = 400) -> Text:
    """A text whose next character is certain."""
    return Text("alphabet", "own text", "abcdefghij\n" * repeats, "abcdefghij\n" * 400)


def future_moves_past(model: LanguageModel) -> bool:
    """Whether an earlier logit changes when a later character does."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randint(VOCABULARY, (3, 16), generator=generator)
    other = first.clone()
    other[:, 9:] = (other[:, 9:] + 1) % VOCABULARY
    with torch.no_grad():
        for matrix in (p for p in model.parameters() if p.dim() == 2):
            matrix.mul_(10)  # initial attention is nearly uniform: make it count
        before, after = model(first), model(other)
    assert not torch.allclose(before[:, 9:], after[:, 9:])
    return not torch.equal(before[:, :9], after[:, :9])


@pytest.mark.parametrize("kind", KINDS)
def test_later_characters_change_no_earlier_logit(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not future_moves_past(small(kind))
    attention = functional.scaled_dot_product_attention
    monkeypatch.setattr(functional, "scaled_dot_product_attention", lambda q, k, v, is_causal: attention(q, k, v))
    assert future_moves_past(small(kind))  # the test can fail


@pytest.mark.parametrize("size", [2, 4, 32])
def test_without_maps_only_the_maps_are_missing(size: int) -> None:
    models = {kind: small(kind, size) for kind in KINDS}
    with_maps, without = (dict(models[kind].named_parameters()) for kind in KINDS[:2])
    missing = set(with_maps) - set(without)
    assert missing == {f"layers.{i}.attention.maps.weight" for i in range(2)} and not set(without) - set(with_maps)
    assert all(torch.equal(with_maps[name], without[name]) for name in without)  # and they start alike
    counts = {kind: parameter_counts(model) for kind, model in models.items()}
    assert counts["with"]["all"] - counts["without"]["all"] == 2 * 3 * size**2
    assert counts["with"]["query, key, value maps"] == 2 * 3 * size**2
    assert abs(counts[KINDS[2]]["all"] / counts["with"]["all"] - 1) < 0.01
    assert counts[KINDS[2]]["query, key, value maps"] == 0


def test_attention_by_hand() -> None:
    """One head without maps: softmax of x x' / sqrt(size) over the past, by hand."""
    model = small("without", size=4)
    attention = model.layers[0].attention
    x = torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    scores = (x[0] @ x[0].T / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -math.inf)
    by_hand = scores.softmax(1) @ x[0] @ attention.output.weight.T
    assert torch.allclose(attention(x)[0], by_hand, atol=1e-6)


def test_uniform_prediction_costs_the_logarithm_of_the_vocabulary() -> None:
    model = small("with")
    torch.nn.init.zeros_(model.characters.weight)  # the head is tied to it: all logits are 0
    windows = torch.randint(VOCABULARY, (4, 17), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(model.losses(windows), torch.full((4,), math.log(VOCABULARY)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_certain_text_is_learnt_and_seeds_repeat(kind: Kind) -> None:
    def run(seed: int, iterations: int) -> LanguageTrained:
        config = LanguageRunConfig(
            model=LanguageModelConfig(kind=kind, size=16, block=16),
            training=LanguageTrainingConfig(iterations=iterations, warm_up=5, evaluate_every=10, learning_rate=0.02),
            seed=seed,
        )
        return train_language(config, alphabet(), progress=False)

    learnt, short, again, other = run(1, 80), run(1, 10), run(1, 10), run(2, 10)
    assert learnt.losses.mean() < 0.25 < 0.5 < short.losses.mean()  # a window's first character alone is uncertain
    assert short.history == again.history and (short.losses == again.losses).all()
    assert short.history[0].train_loss != other.history[0].train_loss


def test_windows_are_drawn_alike_for_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[torch.Tensor]] = {kind: [] for kind in KINDS}
    losses = LanguageModel.losses

    def listen(model: LanguageModel, windows: torch.Tensor) -> torch.Tensor:
        if torch.is_grad_enabled():
            seen[model.config.kind].append(windows)
        return losses(model, windows)

    monkeypatch.setattr(LanguageModel, "losses", listen)
    for kind in KINDS:
        model = LanguageModelConfig(kind=kind, size=4, block=16)
        training = LanguageTrainingConfig(iterations=5, warm_up=1, batch=3)
        train_language(LanguageRunConfig(model=model, training=training, seed=7), alphabet(), progress=False)
    first, *others = ([windows.tolist() for windows in seen[kind]] for kind in KINDS)
    assert len(first) == 5 and all(other == first for other in others) and first[0] != first[1]


def test_learning_rates_by_hand() -> None:
    config = LanguageTrainingConfig(iterations=1_000, warm_up=99, learning_rate=1.0, last_rate=0.1)
    rates = [rate_at(step, config, 800, 1_000) for step in range(1_000)]
    assert rates[0] == 0.01 and rates[98] == 0.99 and set(rates[99:800]) == {1.0}
    assert rates[899] == pytest.approx(0.55) and rates[999] == pytest.approx(0.1)
    cosine = config.model_copy(update={"schedule": "cosine", "warm_up": 0})
    assert [rate_at(step, cosine, 0, 1_000) for step in (0, 500, 1_000)] == pytest.approx([1.0, 0.55, 0.1])


def test_flat_by_hand() -> None:
    assert not is_flat([1.0] * 7)
    assert is_flat([3, 2, 2, 2.0, 1.996, 2.1, 2.1, 2.1]) and not is_flat([3, 2, 2, 2.0, 2.1, 1.99, 2.1, 2.1])
    assert is_flat([9.0, 1, 1, 1, 1, 2, 2, 2, 2])  # worse is flat too: training then ends


def test_training_ends_when_the_loss_is_flat() -> None:
    training = LanguageTrainingConfig(iterations=200, warm_up=1, evaluate_every=5, learning_rate=1e-12)
    config = LanguageRunConfig(model=LanguageModelConfig(size=4, block=16), training=training)
    trained = train_language(config, alphabet(), progress=False)
    assert trained.flat and trained.history[-1].step == 40 + 10  # eight evaluations, then the decay: a fifth of all
    assert trained.history[7].rate == 1e-12 and trained.history[-1].rate == pytest.approx(1e-13)


def test_bad_settings_and_texts_are_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="size 6 is not a multiple of heads 4"):
        LanguageConfig.checked({"heads": 4, "sizes": "8,6"})
    with pytest.raises(InputError, match="sizes"):
        LanguageConfig.checked({"sizes": "64,big"})
    with pytest.raises(InputError, match="'iterations'"):
        LanguageConfig.checked({"iteration": 3})
    with pytest.raises(InputError, match="validation characters"):
        train_language(LanguageRunConfig(), Text("short", "own text", "abc" * 100, "abc"), progress=False)
    monkeypatch.setattr(LanguageModel, "losses", lambda model, windows: model.norm.weight[:1] * math.nan)
    with pytest.raises(InputError, match="lower learning_rate"):
        train_language(LanguageRunConfig(), alphabet(), progress=False)


def test_validation_windows_are_stretches_of_the_text() -> None:
    codes = torch.arange(10_000)
    watched, judged = validation_windows(codes, 64)
    assert (watched.shape, judged.shape) == ((1, 16, 65), (8, 16, 65))
    windows = torch.cat([watched, judged])
    flat = windows.flatten(1)
    assert torch.equal(windows[..., 0].flatten().sort().values, torch.arange(9 * 16) * 64)
    assert torch.equal(flat[:, 0] % 1_024, torch.zeros(9, dtype=torch.int64))
    assert (windows[..., 1:] - windows[..., :-1] == 1).all()


def test_stretches_that_decide_when_training_ends_judge_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, judged = validation_windows(torch.arange(200_000), 64)
    assert (len(watched), len(judged)) == (16, 128)
    assert not set(watched[..., 0].flatten().tolist()) & set(judged[..., 0].flatten().tolist())
    seen: list[torch.Tensor] = []
    measure = language_training.evaluate

    def listen(model: LanguageModel, windows: torch.Tensor) -> np.ndarray:
        seen.append(windows)
        return measure(model, windows)

    monkeypatch.setattr(language_training, "evaluate", listen)
    training = LanguageTrainingConfig(iterations=10, warm_up=1, evaluate_every=5, batch=2)
    config = LanguageRunConfig(model=LanguageModelConfig(size=4, block=16), training=training)
    train_language(config, alphabet(), progress=False)
    during, at_the_end = seen[:-1], seen[-1]
    expected = validation_windows(alphabet().encoded[1], 16)
    assert len(during) == 2 and all(torch.equal(windows, expected[0]) for windows in during)
    assert torch.equal(at_the_end, expected[1])
