"""Metrics against scikit-learn and brute force; intervals that cover; verdicts by the rule."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import mutual_info_score, roc_auc_score

from dare_core import metrics
from dare_core.intervals import (
    Draws,
    Scored,
    auc_resamples,
    best_of,
    difference_interval,
    holm,
    jackknife,
    mean_interval,
)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10_000))
def test_resampled_auc_equals_scikit_learn(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    labels[:2] = [0, 1]
    scores = rng.integers(0, 6, n).astype(float)  # many ties
    weights = rng.integers(0, 4, (5, n)).astype(float)
    weights[:, :2] += 1
    ours = metrics.resampled_auc(labels, scores, weights)
    theirs = [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    assert np.allclose(ours, theirs)


def test_grouped_auc_by_brute_force() -> None:
    rng = np.random.default_rng(0)
    labels, groups = rng.integers(0, 2, 300), rng.integers(0, 40, 300)
    scores = rng.integers(0, 5, 300).astype(float)
    total = weight = left_out = 0.0
    for group in np.unique(groups):
        inside = groups == group
        if labels[inside].min() == labels[inside].max():
            left_out += 1
            continue
        total += roc_auc_score(labels[inside], scores[inside]) * inside.sum()
        weight += inside.sum()
    found = metrics.grouped_auc(labels, scores, groups)
    assert np.isclose(found.value, total / weight)
    assert found.left_out == left_out and found.groups + found.left_out == len(np.unique(groups))


def test_one_class_has_no_auc() -> None:
    assert np.isnan(metrics.auc(np.ones(4), np.arange(4.0)))
    assert np.isnan(metrics.grouped_auc(np.ones(4), np.arange(4.0), np.zeros(4)).value)


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4))
@settings(max_examples=80, deadline=None)
def test_mutual_information_equals_scikit_learn(counts: list[int]) -> None:
    n11, n10, n01, n00 = counts
    x = [1] * (n11 + n10) + [0] * (n01 + n00)
    y = [1] * n11 + [0] * n10 + [1] * n01 + [0] * n00
    expected = mutual_info_score(x, y) / np.log(2) if x else 0.0
    found = metrics.binary_mutual_information(*(np.array([float(c)]) for c in counts))[0]
    assert np.isclose(found, expected, atol=1e-12)


def scored(shift: float, users: int, rng: np.random.Generator) -> Scored:
    labels = np.tile([1, 0, 0], users)
    return Scored(labels, labels * shift + rng.normal(size=3 * users), np.repeat(np.arange(users), 3))


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """AUC of N(shift, 1) against N(0, 1) is Phi(shift / sqrt 2); coverage over 60 data sets."""
    from scipy.stats import norm

    truth = norm.cdf(0.8 / np.sqrt(2))
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        draws = Draws.make(150, 1, 200)
        interval = mean_interval(auc_resamples([scored(0.8, 150, rng)], draws), draws)
        covered += interval.low <= truth <= interval.high
    assert 50 <= covered <= 60


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(0)
    base = [scored(1.0, 200, rng) for _ in range(3)]
    noise = [Scored(b.labels, b.scores + 0.1 * rng.normal(size=len(b.scores)), b.users) for b in base]
    draws = Draws.make(200, 3, 300)
    a, b = auc_resamples(base, draws), auc_resamples(noise, draws)
    paired = difference_interval(a, b, draws)
    single = mean_interval(a, draws)
    assert paired.high - paired.low < (single.high - single.low) / 2
    assert paired.low <= paired.estimate <= paired.high
    assert paired.estimate == pytest.approx(a[0].mean() - b[0].mean())


def test_jackknife_of_a_mean() -> None:
    values = np.random.default_rng(1).normal(2, 1, 400)
    interval = jackknife(400, lambda w: float(np.average(values, weights=w)))
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.standard_error == pytest.approx(1 / 20, rel=0.25)
    assert interval.low < interval.estimate < interval.high
    assert interval.detectable == pytest.approx(2.8 * interval.standard_error)


def shifted(shift: float, rng: np.random.Generator, draws: Draws) -> tuple[np.ndarray, np.ndarray]:
    """Values of 2 seeds and their resamples, `shift` standard errors from 0."""
    return np.full(2, shift), shift + rng.normal(size=(2, len(draws.users)))


def test_holm_stops_at_the_first_that_includes_zero() -> None:
    """Four differences that single intervals would reject, and Holm does not; one that is far away, it does."""
    rng = np.random.default_rng(0)
    draws = Draws.make(5, 2, 20_000)
    zero = (np.zeros(2), np.zeros((2, 20_000)))
    near = {f"near {i}": (shifted(1.95, rng, draws), zero) for i in range(4)}
    single = {name: difference_interval(*pair, draws) for name, pair in near.items()}
    assert all(interval.low > 0 for interval in single.values())
    assert all(interval.low <= 0 for interval in holm(near, draws).values())
    far = holm({**near, "far": (shifted(9.0, rng, draws), zero)}, draws)
    assert far["far"].low > 0 and all(far[name].low <= 0 for name in near)


def test_best_of_is_chosen_anew_in_every_draw() -> None:
    draws = Draws(np.ones((3, 1)), np.array([[1.0, 1.0]] * 3))
    a = (np.array([0.5, 0.5]), np.array([[0.9, 0.1, 0.5], [0.9, 0.1, 0.5]]))
    b = (np.array([0.6, 0.6]), np.array([[0.2, 0.8, 0.4], [0.2, 0.8, 0.4]]))
    plain, drawn = best_of([a, b], draws)
    assert plain.tolist() == [0.6, 0.6] and drawn[0].tolist() == [0.9, 0.8, 0.5]
