"""Counts of relevance against a dense reference that goes through the batches."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log

from dare_core.data.samples import Samples, make_samples
from dare_core.evaluation.intervals import user_groups
from dare_core.evaluation.relevance import relevance_counts, user_weights
from dare_core.studies.relevance import decay_slope, same_minus_other


def dense_hits(samples: Samples, categories: np.ndarray, positions: int) -> np.ndarray:
    """(U, T, T, P, 2) hits by comparing every behaviour of every batch with every category."""
    batch = samples.batch(slice(0, len(samples)))
    recent = batch.history_categories.numpy()[:, ::-1][:, :positions]  # newest first
    behaviour = recent[:, None, :] == categories[:, None]  # (H, T, P)
    target = samples.categories.numpy()[:, :, None] == categories  # (H, C, T)
    clicked = np.stack([target[:, 1:].sum(1), target[:, :1].sum(1)], -1)  # (H, T, 2)
    each = np.einsum("hty,hbp->htbpy", clicked.astype(float), behaviour.astype(float))
    _, users = np.unique(samples.users.numpy(), return_inverse=True)
    found = np.zeros((users.max() + 1, *each.shape[1:]))
    np.add.at(found, users, each)
    return found


@pytest.mark.parametrize("categories, positions", [(3, 5), (8, 20), (50, 50)])
@pytest.mark.parametrize("split", ["train", "test"])
def test_hits_are_those_of_a_dense_count(split: str, categories: int, positions: int) -> None:
    samples = make_samples(make_log(seed=3), SMALL_SAMPLES, 1)[split]
    counts = relevance_counts(samples, categories, positions)
    expected = dense_hits(samples, counts.categories, counts.positions)
    assert counts.hits.toarray().reshape(expected.shape).tolist() == expected.tolist() and expected.any()
    totals = counts.samples.toarray().reshape(counts.users, -1, 2).sum(0)
    of_split = samples.categories.numpy()
    assert totals[:, 1].tolist() == [(of_split[:, 0] == c).sum() for c in counts.categories]
    assert totals.sum(1).tolist() == [(of_split == c).sum() for c in counts.categories]


def test_targets_in_any_order_and_behaviours_of_unknown_categories() -> None:
    samples = make_samples(make_log(seed=4), SMALL_SAMPLES, 1)["train"]
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(0))
    names = ("users", "row", "start", "items", "categories", "new", "seen")
    mixed = dataclasses.replace(samples, **{name: getattr(samples, name)[order] for name in names})
    assert (relevance_counts(mixed, 5, 9).hits != relevance_counts(samples, 5, 9).hits).nnz == 0
    clicks = dataclasses.replace(samples.clicks, categories=samples.clicks.categories + 100)
    beyond = dataclasses.replace(samples, clicks=clicks)  # categories that no target has
    assert relevance_counts(beyond, 5, 9).hits.nnz == 0


def test_a_user_that_counts_twice_is_two_users() -> None:
    samples = make_samples(make_log(seed=5), SMALL_SAMPLES, 1)["train"]
    counts = relevance_counts(samples, 4, 6)
    twice = np.ones(counts.users)
    twice[7] = 2
    own = samples.users == samples.users.unique()[7]
    names = ("users", "row", "start", "items", "categories", "new", "seen")
    more = {name: torch.cat([getattr(samples, name), getattr(samples, name)[own]]) for name in names}
    again = relevance_counts(dataclasses.replace(samples, **more), 4, 6)
    order = [list(again.categories).index(c) for c in counts.categories if c in again.categories]
    assert len(order) == 4  # the same categories stay the most frequent
    expected = again.mutual_information()[np.ix_(order, order)]
    np.testing.assert_allclose(counts.mutual_information(twice), expected, rtol=1e-10, atol=1e-15)


def test_replicates_are_counts_without_a_group_of_users() -> None:
    samples = make_samples(make_log(seed=6), SMALL_SAMPLES, 1)["train"]
    groups = user_groups(samples.users.numpy(), 7)
    counts = relevance_counts(samples, 4, 6)
    found = counts.replicates(user_weights(samples, groups), same_minus_other)
    assert found.shape == (8,) and found[0] == same_minus_other(counts.mutual_information())
    kept = torch.from_numpy(groups != 2)
    names = ("users", "row", "start", "items", "categories", "new", "seen")
    left = relevance_counts(dataclasses.replace(samples, **{n: getattr(samples, n)[kept] for n in names}), 4, 6)
    assert set(left.categories) == set(counts.categories)
    assert found[3] == pytest.approx(same_minus_other(left.mutual_information()))
    assert user_weights(samples, None).tolist() == [[1.0] * counts.users]


def test_slope_by_hand() -> None:
    """Information of 3 - ln(position) at each of 9 positions, and none where there is but one."""
    x = np.log(np.arange(1, 10))
    information = np.broadcast_to(3 - x, (2, 2, 9))
    assert decay_slope(information) == pytest.approx(-1 / (3 - x.mean()))
    assert np.isnan(decay_slope(information[..., :1])) and np.isnan(decay_slope(0 * information))
