"""Discriminability: values against scikit-learn and brute force, the chance level, and whether intervals cover."""

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score, normalized_mutual_info_score

from dare_core.config import ModelConfig
from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.evaluation.discriminability import (
    Discriminability,
    cluster,
    discriminability,
    information,
    leave_one_out,
    part_of,
    representations,
    usable,
)
from dare_core.evaluation.intervals import interval, user_groups
from dare_core.models.click_model import join
from dare_core.models.zoo import build_model
from dare_core.studies.discriminability import at_every, mean
from dare_core.training.runs import counts_of
from tests.conftest import SMALL_SAMPLES, make_log

RNG = np.random.default_rng(7)


def flat(clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels = np.zeros(clusters.shape, int)
    labels[:, 0] = 1
    return labels.ravel(), clusters.ravel()


@pytest.mark.parametrize(("targets", "candidates", "number"), [(40, 3, 5), (200, 2, 30), (9, 4, 60)])
def test_values_are_those_of_scikit_learn(targets: int, candidates: int, number: int) -> None:
    clusters = RNG.integers(number, size=(targets, candidates))
    clusters[:, 0] //= 2  # clicked candidates gather in half of the clusters
    found = discriminability(clusters, number)
    pair = flat(clusters)
    assert found.plain[0] == pytest.approx(mutual_info_score(*pair), abs=1e-9)
    assert found.normalised == pytest.approx(normalized_mutual_info_score(*pair), abs=1e-9)
    assert found.adjusted == pytest.approx(adjusted_mutual_info_score(*pair), abs=1e-9)


def test_information_by_hand_and_by_brute_force() -> None:
    assert information(np.array([5, 0, 0]), np.array([5, 5, 0])) == pytest.approx(np.log(2))
    assert information(np.array([2, 4]), np.array([6, 12])) == 0
    total = RNG.integers(1, 9, size=(4, 6))
    clicked = RNG.integers(total + 1)
    for line in range(4):
        n, p = total[line].sum(), clicked[line].sum()
        expected = 0.0
        for c, t in zip(clicked[line], total[line], strict=True):
            for joint, margin in ((c, p), (t - c, n - p)):
                expected += joint / n * np.log(joint * n / (t * margin)) if joint else 0.0
        assert information(clicked, total)[line] == pytest.approx(expected, abs=1e-12)


def test_leaving_out_a_group_is_computing_without_it() -> None:
    clusters = RNG.integers(4, size=(60, 3))
    groups = user_groups(np.repeat(np.arange(20), 3), groups=5)
    assert (groups.reshape(20, 3) == groups.reshape(20, 3)[:, :1]).all() and set(groups) == set(range(5))
    found = discriminability(clusters, 4, groups)
    assert found.plain.shape == found.chance.shape == (6,)
    for group in range(5):
        left = discriminability(clusters[groups != group], 4)
        assert found.plain[group + 1] == pytest.approx(left.plain[0], abs=1e-12)
    assert leave_one_out(np.array([[1, 2], [3, 4]])).tolist() == [[4, 6], [3, 4], [1, 2]]


def test_chance_is_what_clusters_without_information_have() -> None:
    """Less its chance level, a clustering that knows nothing has none, with few clusters and with many; plainly
    it seems to have some. Clusters that hold a target's candidates together have exactly none."""
    for number in (2, 20, 100):
        runs = [discriminability(np.random.default_rng(s).integers(number, size=(300, 3)), number) for s in range(60)]
        above = np.array([run.above_chance[0] for run in runs])
        spread = np.mean([run.spread for run in runs])
        assert abs(above.mean()) < 4 * spread / np.sqrt(len(runs))
        assert 0.5 < above.std() / spread < 1.5
        assert number < 20 or np.mean([run.plain[0] for run in runs]) > 5 * abs(above.mean())
    together = np.repeat(np.arange(100)[:, None], 3, 1)
    found = discriminability(together, 100)
    assert found.plain[0] == found.chance[0] == 0 and found.adjusted < -0.05  # labels permuted over all would mislead
    informed = RNG.integers(20, size=(300, 3))
    informed[:150, 0] = 0
    found = discriminability(informed, 20)
    assert found.above_chance[0] > 10 * found.spread


def test_clusters_are_the_same_again_and_find_what_is_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    centres = np.repeat(np.eye(6, dtype=np.float32) * 10, 50, 0)
    vectors = centres + RNG.normal(size=centres.shape).astype(np.float32) * 0.1
    found = cluster(vectors, 6, 0)
    assert (found == cluster(vectors, 6, 0)).all()
    assert mutual_info_score(found, np.repeat(np.arange(6), 50)) > np.log(6) - 0.5
    assert found.max() < 6 and found.min() >= 0
    monkeypatch.setattr(
        "dare_core.evaluation.discriminability.FITTED", 2_500
    )  # the rest is assigned without being fitted
    part = cluster(np.tile(vectors, (10, 1)), 6, 0)
    assert (
        part.shape == (3_000,) and mutual_info_score(part, np.tile(np.repeat(np.arange(6), 50), 10)) > np.log(6) - 0.5
    )


def test_the_clustered_parts_of_a_head_s_input() -> None:
    v, h = torch.rand(5, 3, 4), torch.rand(5, 3, 4)
    assert torch.equal(part_of(join("target_aware", v, h), "target_aware", "pooled history"), v * h)
    assert torch.equal(part_of(join("product", v, h), "product", "pooled history"), v * h)
    assert torch.equal(part_of(join("concatenation", v, h), "concatenation", "pooled history"), torch.cat([v, h], -1))
    assert part_of(join("target_aware", v, h), "target_aware", "whole input").shape[-1] == 12


def test_representations_of_models_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    log = make_log()
    test = make_samples(log, SMALL_SAMPLES, 1)["test"]
    model = build_model(ModelConfig(name="DARE", size=4), counts_of(log, SMALL_SAMPLES), seed=1)
    whole = representations(model, test, ("pooled history", "whole input"))
    assert whole["pooled history"].shape == (*test.items.shape, 12)
    assert (whole["whole input"][..., 24:] == whole["pooled history"]).all()
    assert whole["pooled history"].dtype == np.float32 and whole["pooled history"].any(-1).all()
    monkeypatch.setattr("dare_core.evaluation.discriminability.BLOCK", 7)
    again = representations(model, test, ("pooled history",))["pooled history"]
    np.testing.assert_allclose(again, whole["pooled history"], rtol=1e-4, atol=1e-9)


def test_numbers_of_clusters_with_too_few_samples_are_left_out() -> None:
    assert usable((100, 2, 10, 10, 101), 500) == [2, 10, 100]
    with pytest.raises(InputError, match="fewer clusters"):
        usable((50, 100), 249)


def toy(seed: int, strength: float, number: int = 12, users: int = 250, seeds: int = 3) -> np.ndarray:
    """(S, 1 + G, 2) values of two clusterings, fine and coarse: the clicked candidate of a share `strength` of the
    users (the same with every seed) lies in the first third."""
    rng = np.random.default_rng(seed)
    follows = rng.random(users) < strength
    groups = user_groups(np.arange(users))
    values = []
    for _ in range(seeds):
        fine = rng.integers(number, size=(users, 3))
        fine[follows, 0] = rng.integers(number // 3, size=follows.sum())
        found: list[Discriminability] = [discriminability(fine, number, groups, 5)]
        found.append(discriminability(fine // 2, number // 2, groups, 5))
        values.append(np.stack([one.above_chance for one in found], 1))
    return np.stack(values)


def test_intervals_cover_equal_models_and_exclude_better_ones() -> None:
    """Of 50 comparisons of equal models the interval of the mean contains 0 in nearly all, and few are better at
    every number of clusters; a clearly better model is found in nearly all, at every number of clusters as well."""
    equal, better, smallest, false = 0, 0, 0, 0
    for trial in range(50):
        base = toy(trial, 0.4)
        other = toy(1_000 + trial, 0.4)
        found = mean(base - other)
        equal += found.low <= 0 <= found.high
        false += at_every(base - other).low > 0
        gain = toy(2_000 + trial, 0.8) - base
        better += mean(gain).low > 0
        smallest += at_every(gain).low > 0
    assert equal >= 44 and false <= 3 and better >= 45 and smallest >= 40


def test_at_every_number_of_clusters_is_the_weakest_of_them() -> None:
    values = toy(3, 0.8) - toy(4, 0.4) + np.array([0.0, -0.05])
    every, parts = at_every(values), [interval(values[..., n]) for n in range(2)]
    assert every.estimate == min(part.estimate for part in parts) and every.low == min(part.low for part in parts)
    assert every.estimate < mean(values).estimate


def test_the_interval_of_users_and_seeds() -> None:
    """Spread between seeds widens it, users drawn closer narrow it; identical models have an interval of width 0."""
    values = toy(0, 0.5)
    plain = mean(values)
    assert plain.estimate == pytest.approx(values[:, 0].mean()) and plain.seeds == 3
    apart = values + np.array([-0.1, 0.0, 0.1])[:, None, None]
    assert mean(apart).standard_error > 2 * plain.standard_error
    one = mean(values[:1])
    assert one.seeds == 1 and 0 < one.low < one.high
    same = at_every(values - values)
    assert (same.low, same.estimate, same.high) == (0, 0, 0)
