"""Styled worlds: the sampler draws what the formula says, and nothing beats the oracle."""

import itertools

import numpy as np
import pytest
from pydantic import ValidationError

from dare_core.config import SampleConfig
from dare_core.data.generated import generate, world_of
from dare_core.data.log_statistics import style_statistics
from dare_core.data.samples import make_samples, training_counts
from dare_core.data.styled import CERTAIN, Oracle, Styled, next_styled
from dare_core.data.worlds import Kernel, StyledConfig, World, build_world, item_ids, true_relevance, world_config
from dare_core.evaluation.baselines import oracle_scores, rule_scores
from dare_core.evaluation.metrics import auc

TINY = StyledConfig(users=40, items=24, categories=5, groups=2, items_per_style=3, shortest=210, longest=230)
SMALL = StyledConfig(users=300, items=3_000, categories=60, groups=8, items_per_style=10)


def _formula(world: World, history: np.ndarray) -> np.ndarray:
    """(items + 1,) probabilities of the next click, written down as the text states them; `history` oldest first."""
    c = world.config
    assert isinstance(c, StyledConfig)
    p = world.item_probability
    labels = [np.arange(len(p)), world.style, world.item_category, world.group[world.item_category]]
    total = (1 - sum(c.shares)) * p
    for share, kernel, label in zip(c.shares, c.kernels, labels, strict=True):
        values = kernel.values()
        for back, item in enumerate(history[::-1][:200]):
            same = (label == label[item]) * p
            total = total + share * values[back] * same / same.sum()
        total = total + share * values[len(history) :].sum() * p
    return total


def _in_log(world: World, history: np.ndarray, width: int) -> np.ndarray:
    """(1, width) a history of world numbers in the log's ids, padded."""
    padded = np.zeros(width, np.int64)
    padded[width - len(history) :] = item_ids(world.config)[history]
    return padded[None]


@pytest.mark.parametrize("length", [0, 1, 7, 200, 230])
def test_oracle_is_the_formula_and_sums_to_one(length: int) -> None:
    world = build_world(TINY)
    history = np.random.default_rng(length).integers(1, 25, length)
    ids = item_ids(TINY)
    found = Oracle(world).click_probability(_in_log(world, history, 230), ids[None, 1:])[0]
    np.testing.assert_allclose(found, _formula(world, history)[1:], rtol=1e-12)
    assert found.sum() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("length", [0, 3, 200])
def test_sampler_draws_from_the_formula(length: int) -> None:
    world = build_world(TINY)
    rng = np.random.default_rng(5)
    history, draws = rng.integers(1, 25, length), 200_000
    process, uniform = Styled.of(world), rng.random((draws, 3))
    counts = np.bincount([next_styled(process, history, u) for u in uniform], minlength=25)
    expected = _formula(world, history) * draws
    chi = ((counts[1:] - expected[1:]) ** 2 / expected[1:]).sum()
    assert counts[0] == 0 and chi < 55  # 23 degrees of freedom: 1 in 5,000 lies beyond


def test_score_is_the_log_ratio_of_clicked_and_drawn() -> None:
    """Enumeration: the probability of every candidate as a click, and as a negative by the sampler's own rule."""
    world = build_world(TINY)
    history = np.random.default_rng(3).integers(1, 12, 200)
    p, q = _formula(world, history), world.item_probability
    free = [i for i in range(1, 25) if i not in history]
    drawn = np.zeros(25)
    for clicked, negative in itertools.product(range(1, 25), free):
        if negative != clicked:
            left = sum(q[i] for i in free if i != clicked)
            drawn[negative] += p[clicked] * q[negative] / left
    assert drawn.sum() == pytest.approx(1)
    ids = item_ids(TINY)
    score = np.concatenate([[0.0], Oracle(world).score(_in_log(world, history, 200), ids[None, 1:])[0]])
    assert (score[np.unique(history)] == CERTAIN).all()
    ratio = np.log(p[free] / drawn[free])
    # exact but for the clicked item's own share of what is left: of the order of its probability
    np.testing.assert_allclose(score[free], ratio, atol=2 * q[free].max() / q[free].sum())
    order = np.argsort(ratio)
    assert np.corrcoef(score[free], ratio)[0, 1] > 0.999 and (np.diff(score[free][order]) > -0.1).all()


def test_no_rule_beats_the_oracle() -> None:
    log = generate(SMALL)
    world = world_of(log)
    assert world is not None
    splits = make_samples(log, SampleConfig(), 1)
    labels, new = splits["test"].labels, splits["test"].new.numpy()
    best = oracle_scores(world, splits["test"])
    rules = rule_scores(splits, training_counts(log))["test"]
    for scores in rules.values():
        assert auc(labels, best) > auc(labels, scores)
        assert auc(labels[new], best[new]) > auc(labels[new], scores[new])


def test_clicks_have_the_items_probabilities() -> None:
    config = SMALL.model_copy(update={"users": 4_000, "repeat_share": 0.0})
    log = generate(config)
    assert log.item_probability is not None
    category = np.bincount(log.categories, minlength=61) / len(log.categories)
    expected = np.bincount(log.item_category, weights=log.item_probability)
    assert np.abs(category - expected).max() < 0.02


def test_styles_are_within_categories_and_kept_to() -> None:
    world = build_world(SMALL)
    pairs = np.unique(np.stack([world.style, world.item_category]), axis=1)
    assert pairs.shape[1] == len(np.unique(world.style))
    log = generate(SMALL.model_copy(update={"users": 1_500}))
    style = np.zeros(SMALL.items + 1, np.int64)
    style[item_ids(SMALL)] = world.style
    with_styles = style_statistics(log, style)
    shuffled = style_statistics(log, np.random.default_rng(1).permutation(style))
    assert (with_styles["same style at lag 1, beyond chance"] or 0) > 0.2
    assert abs(shuffled["same style at lag 1, beyond chance"] or 0) < 0.02


def test_true_relevance_is_the_behaviours_part_in_the_category_s_probability() -> None:
    world = build_world(TINY)
    history = np.random.default_rng(9).integers(1, 25, 200)
    whole = _formula(world, history)
    for target in range(1, 6):
        relevance = true_relevance(world, world.item_category[history][None], np.array([target]))[0]
        rest = (1 - sum(TINY.shares)) * world.category_probability[target]
        assert relevance.sum() + rest == pytest.approx(whole[world.item_category == target].sum(), rel=1e-9)


def test_wrong_settings_are_refused() -> None:
    with pytest.raises(ValidationError, match="below 1"):
        StyledConfig(repeat_share=0.6, style_share=0.5)
    with pytest.raises(ValidationError, match="extra"):
        world_config({"kind": "styled", "interests": 3})
    assert world_config({"kind": "styled", "related_kernel": Kernel(exponent=1.0)}) != world_config({"kind": "twin"})
