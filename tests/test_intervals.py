"""Intervals: their coverage, and how often several comparisons raise a false alarm."""

import numpy as np
import pytest
from scipy.stats import ttest_1samp
from sklearn.metrics import roc_auc_score

from dare_core.evaluation.intervals import (
    GROUPS,
    all_above,
    holm,
    interval,
    leave_out,
    none_above,
    ratio_interval,
    user_groups,
    wilson,
)
from dare_core.evaluation.metrics import resampled_auc

USERS = 200


def mean_replicates(rng: np.random.Generator, seeds: int, spread: float, interaction: float, models: int = 1):
    """(models, S, 1 + G) replicates of a mean over users whose truth is 0: users, seeds and their interaction vary.

    `spread`: the seeds' standard deviation in standard errors over users."""
    groups = user_groups(np.arange(USERS))
    weights = leave_out(groups, USERS)
    user = rng.normal(0, 1, (models, 1, USERS))
    seed = rng.normal(0, spread * USERS**-0.5, (models, seeds, 1))
    values = user + seed + rng.normal(0, interaction, (models, seeds, USERS))
    return values @ weights.T / weights.sum(1)


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0, 1, 2, 4, 8])
def test_intervals_cover_the_truth(seeds: int, spread: int) -> None:
    """study.md: .92 to .98 with 3 and 5 seeds, at a seed SD of 0, 1, 2, 4, 8 times the users' standard error."""
    rng = np.random.default_rng([seeds, spread])
    values = mean_replicates(rng, seeds, spread, 0.5, models=5_000)
    covered = np.mean([abs(part.estimate) <= part.high - part.estimate for part in map(interval, values)])
    assert 0.92 <= covered <= 0.98


@pytest.mark.parametrize("worlds", [3, 5])
def test_intervals_over_worlds_are_students(worlds: int) -> None:
    values = np.random.default_rng(0).normal(0.3, 1, (2_000, worlds, 1))
    first = interval(values[0])
    known = ttest_1samp(values[0, :, 0], 0).confidence_interval(0.95)
    assert np.allclose([first.low, first.high, first.freedom], [known.low, known.high, worlds - 1])
    covered = np.mean([part.low <= 0.3 <= part.high for part in map(interval, values)])
    assert 0.935 <= covered <= 0.965


def test_power_and_detectable_difference_are_what_they_say() -> None:
    """A true effect of `detectable` is found in 80 % of draws, at the interval's own level."""
    rng = np.random.default_rng(1)
    noise = rng.normal(0, 1, (4_000, 5, 1))
    for level in (0.95, 0.99):
        true = interval(np.array([[-1.0], [0], [1], [0], [0]]) * 2**0.5, level)  # an SE of 1 / sqrt(5) of SD 1
        effect = true.detectable
        found = np.mean([interval(values + effect, level).low > 0 for values in noise])
        assert abs(found - 0.8) < 0.04
        assert abs(true.power(effect) - found) < 0.04


def test_ratios_are_judged_on_the_log_scale() -> None:
    first, second = np.array([[2.0], [4.0], [8.0]]), np.array([[1.0], [1.0], [1.0]])
    ratio = ratio_interval(first, second)
    assert ratio.estimate == pytest.approx(4) and ratio.logarithmic
    assert ratio.low * ratio.high == pytest.approx(16)  # as far from the estimate on either side, as factors
    turned = ratio_interval(second, first)
    assert turned.low == pytest.approx(1 / ratio.high)


def test_wilsons_interval_stays_within_what_is_possible() -> None:
    for share in (0.0, 0.5, 1.0):
        part = wilson(share, 36)
        assert 0 <= part.low <= share <= part.high <= 1
    assert wilson(1.0, 36).low == pytest.approx(0.904, abs=0.002)


def identical_models(rng: np.random.Generator, models: int, seeds: int, spread: float) -> dict[str, np.ndarray]:
    """Differences of `models` from a reference that they equal: all share the reference's own luck."""
    values = mean_replicates(rng, seeds, spread, 0.5, models=models + 1)
    return {str(m): values[m] - values[-1] for m in range(models)}


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0, 2])
def test_eleven_identical_variants_raise_few_false_alarms(seeds: int, spread: int) -> None:
    """P2, "none helps": one of eleven models equal to the reference seems better in at most 5 % of draws."""
    rng = np.random.default_rng([seeds, spread, 2])
    alarms = np.mean([none_above(identical_models(rng, 11, seeds, spread)).low > 0 for _ in range(400)])
    assert alarms <= 0.05


@pytest.mark.parametrize("seeds", [3, 5])
@pytest.mark.parametrize("spread", [0, 2])
def test_the_best_of_identical_models_is_not_found(seeds: int, spread: int) -> None:
    """O1, "better than each", in both directions: at most 2.5 % claimed or contradicted where all are equal."""
    rng = np.random.default_rng([seeds, spread, 3])
    parts = [all_above(identical_models(rng, 9, seeds, spread)) for _ in range(400)]
    assert np.mean([part.low > 0 for part in parts]) <= 0.025
    assert np.mean([part.high < 0 for part in parts]) <= 0.05


def test_a_model_better_than_each_is_found_and_a_worse_one_contradicted() -> None:
    rng = np.random.default_rng(4)
    values = identical_models(rng, 9, 5, 0)
    assert all_above({name: v + 1.0 for name, v in values.items()}).low > 0
    values["0"] = values["0"] - 1.0
    assert all_above(values).high < 0
    assert none_above({name: -v for name, v in values.items()}).low > 0


def test_holm_widens_and_steps_down() -> None:
    rng = np.random.default_rng(5)
    values = {"far": rng.normal(5, 1, (6, 1)), "near": rng.normal(1.2, 1, (6, 1))}
    corrected = holm(values)
    assert corrected["far"].level == pytest.approx(0.975)
    assert corrected["near"].level == pytest.approx(0.95)  # the first excludes 0


def test_leaving_out_groups_equals_computing_without_them() -> None:
    rng = np.random.default_rng(6)
    users = np.repeat(np.arange(80), 3)
    labels, scores = np.tile([1, 0, 0], 80), rng.random(240).round(1)
    groups = user_groups(np.arange(80))
    weights = leave_out(groups, 80)
    found = resampled_auc(labels, scores, weights[:, users])
    assert len(found) == 1 + GROUPS and found[0] == pytest.approx(roc_auc_score(labels, scores))
    kept = groups[users] != 7
    assert found[8] == pytest.approx(roc_auc_score(labels[kept], scores[kept]))


def test_pairing_narrows_the_interval_of_a_difference() -> None:
    rng = np.random.default_rng(7)
    values = mean_replicates(rng, 3, 1, 0.1)[0]
    other = values + mean_replicates(rng, 3, 0, 0.0)[0] / 10
    paired, single = interval(values - other), interval(values)
    assert paired.high - paired.low < (single.high - single.low) / 2
