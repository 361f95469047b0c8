"""Metrics against scikit-learn and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, mutual_info_score, roc_auc_score

from dare_core.evaluation import metrics


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
    found = metrics.mutual_information(np.array([[n11, n10], [n01, n00]]))
    assert np.isclose(found, expected, atol=1e-12)


def test_accuracy_is_the_share_on_the_right_side_of_one_half() -> None:
    labels, probability = np.array([1, 1, 0, 0]), np.array([0.9, 0.4, 0.4, 0.1])
    assert metrics.accuracy(labels, probability) == 0.75
    assert metrics.accuracy(np.array([1, 0]), np.array([0.5, 0.5])) == 0.5


def test_grouped_auc_weighs_groups_by_their_samples() -> None:
    labels, scores = np.array([1, 0, 1, 0, 0, 0]), np.array([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    found = metrics.grouped_auc(labels, scores, np.array([1, 1, 2, 2, 2, 2]))
    assert found.value == pytest.approx(2 / 6)


def test_logloss_of_certain_mistakes_is_that_of_float64() -> None:
    labels, probability = np.array([0, 1]), np.array([1.0, 0.5], np.float32)
    by_hand = -np.log([1e-8, 0.5])
    each = [metrics.logloss(labels[i : i + 1], probability[i : i + 1]) for i in range(2)]
    assert np.allclose(each, by_hand)
    assert metrics.logloss(labels, probability) == metrics.logloss(labels, probability.astype(np.float64))
    assert metrics.logloss(labels, probability) == pytest.approx(by_hand.mean())


def test_logloss_equals_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    labels, probability = rng.integers(0, 2, (40, 3)), rng.random((40, 3))
    assert metrics.logloss(labels, probability) == pytest.approx(log_loss(labels.ravel(), probability.ravel()))


@pytest.mark.parametrize("labels", [[], [0, 0], [1, 1]])
def test_auc_without_both_classes_is_not_a_number(labels: list[int]) -> None:
    assert np.isnan(metrics.auc(np.array(labels), np.arange(float(len(labels)))))
