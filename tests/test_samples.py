"""Samples: the published protocol, negatives, subsets, rules."""

from dataclasses import fields, replace

import numpy as np
import polars as pl
import pytest
import torch
from conftest import SMALL_SAMPLES, make_log

from dare_core.data.logs import Log, store_log
from dare_core.data.samples import Samples, make_samples, training_counts
from dare_core.errors import InputError
from dare_core.evaluation.baselines import DECAY, RULES, rule_features, rule_scores
from dare_core.evaluation.metrics import auc


def test_targets_and_histories_by_hand(log: Log) -> None:
    splits = make_samples(log, SMALL_SAMPLES, 1)
    expected = {"train": [], "validation": [], "test": []}
    for user in range(log.card.users):
        clicks = log.items[log.offsets[user] : log.offsets[user + 1]]
        if len(clicks) < SMALL_SAMPLES.shortest_user:
            continue
        for back in (3, 6, 9, 12):
            if len(clicks) - back >= 1:
                expected["train"].append((user, len(clicks) - back))
        expected["validation"].append((user, len(clicks) - 2))
        expected["test"].append((user, len(clicks) - 1))
    for split, targets in expected.items():
        samples = splits[split]
        batch = samples.batch(torch.arange(len(samples)))
        assert len(samples) == len(targets) > 0
        for i, (user, at) in enumerate(targets):
            clicks = log.items[log.offsets[user] : log.offsets[user + 1]]
            history = clicks[max(0, at - 20) : at]
            padded = np.concatenate([np.zeros(20 - len(history), int), history])
            assert samples.users[i] == user and batch.target_items[i, 0] == clicks[at]
            assert np.array_equal(batch.history_items[i].numpy(), padded)
            assert np.array_equal(batch.history_categories[i].numpy(), log.item_category[padded])
            for j, item in enumerate(samples.items[i].numpy()):
                assert bool(samples.new[i, j]) == (item not in clicks[:at])


def test_published_spacing() -> None:
    log = make_log(users=3, shortest=59)
    config = SMALL_SAMPLES.model_copy(update={"targets": 9, "spacing": 5})
    rows = make_samples(log, config, 1)["train"].row.reshape(3, 9)
    assert (log.offsets[1:, None] - rows.numpy() == [3, 8, 13, 18, 23, 28, 33, 38, 43]).all()


def test_negatives_are_never_clicked_and_follow_popularity(log: Log) -> None:
    config = SMALL_SAMPLES.model_copy(update={"negatives": 40})
    samples = make_samples(log, config, 1)["train"]
    clicked = {
        user: set(log.items[log.offsets[user] : log.offsets[user + 1]].tolist()) for user in range(log.card.users)
    }
    for user, items in zip(samples.users.tolist(), samples.items[:, 1:].tolist(), strict=True):
        assert not clicked[user] & set(items)
    anything = make_samples(log, config.model_copy(update={"negative_rule": "any"}), 1)["train"]
    drawn = np.bincount(anything.items[:, 1:].numpy().ravel(), minlength=81)
    share = np.bincount(log.items, minlength=81) / len(log.items)
    assert drawn[0] == 0
    assert np.abs(drawn / drawn.sum() - share).max() < 0.01


def test_seed_moves_negatives_only(log: Log) -> None:
    first, again, other = (make_samples(log, SMALL_SAMPLES, seed)["train"] for seed in (1, 1, 2))
    assert torch.equal(first.items, again.items)
    assert torch.equal(first.items[:, 0], other.items[:, 0])
    assert not torch.equal(first.items[:, 1:], other.items[:, 1:])


def test_seen_is_what_occurs_in_training(log: Log) -> None:
    splits = make_samples(log, SMALL_SAMPLES, 1)
    train = splits["train"]
    batch = train.batch(torch.arange(len(train)))
    occurring = set(batch.history_items.unique().tolist()) | set(batch.target_items.unique().tolist())
    test = splits["test"]
    for item, seen in zip(test.items.ravel().tolist(), test.seen.ravel().tolist(), strict=True):
        assert seen == (item in occurring)


def test_no_user_long_enough_says_how_many_have_how_much(log: Log) -> None:
    with pytest.raises(InputError, match="500"):
        make_samples(log, SMALL_SAMPLES.model_copy(update={"shortest_user": 500}), 1)


def test_a_user_who_clicked_everything_is_reported() -> None:
    log = make_log(users=5, items=3, categories=2, shortest=50)
    with pytest.raises(InputError, match="any"):
        make_samples(log, SMALL_SAMPLES, 1)


def test_rule_features_by_hand(log: Log) -> None:
    splits = make_samples(log, SMALL_SAMPLES, 1)
    test = splits["test"]
    counts = training_counts(log)
    features = rule_features(test, counts)
    batch = test.batch(torch.arange(len(test)))
    for h in range(0, len(test), 7):
        for c in range(3):
            history = batch.history_items[h].tolist()
            categories = batch.history_categories[h].tolist()
            item, category = int(test.items[h, c]), int(test.categories[h, c])
            assert features["item in history"][h, c] == (item in history)
            same = [20 - j for j, b in enumerate(categories) if b == category]
            assert features["category count"][h, c] == len(same)
            decayed = sum(np.exp(-(p - 1) / DECAY) for p in same)
            assert np.isclose(features["category decayed"][h, c], decayed, atol=1e-5)
            assert np.isclose(features["popularity"][h, c], np.log1p(counts[item]))


def test_rules_clear_chance_and_regression_clears_the_category_rule(log: Log) -> None:
    splits = make_samples(make_log(users=300), SMALL_SAMPLES, 1)
    every = rule_scores(splits, training_counts(make_log(users=300)))
    scores = every["test"]
    assert set(every["validation"]) == set(RULES), "the regression is fitted there"
    values = {name: auc(splits["test"].labels, score) for name, score in scores.items()}
    assert set(RULES) < set(scores)
    assert values["category decayed"] > 0.6
    assert values["logistic regression on these"] > values["category count"] - 0.02


def test_future_clicks_do_not_move_training_counts(log: Log) -> None:
    counts = training_counts(log)
    assert counts.sum() == len(log.items) - 2 * log.card.users


def test_every_tensor_moves_whatever_its_annotation_is(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = make_samples(log, SMALL_SAMPLES, 1)["test"]
    for field in fields(Samples):
        monkeypatch.setattr(field, "type", "Tensor")  # as with `from __future__ import annotations`
    moved = samples.on(samples.clicks.to(torch.device("meta")))
    values = {field.name: getattr(moved, field.name) for field in fields(Samples)}
    tensors = {name for name, value in values.items() if isinstance(value, torch.Tensor)}
    assert tensors == {"users", "row", "start", "items", "categories", "new", "seen"}
    assert {values[name].device.type for name in tensors} == {"meta"}


def test_negatives_of_a_group_are_of_the_targets_group(log: Log) -> None:
    group = (np.arange(log.card.items + 1) % 3).astype(np.int32)
    grouped = replace(log, item_group=group)
    config = SMALL_SAMPLES.model_copy(update={"negatives_within": True, "negatives": 20, "negative_rule": "any"})
    for part in make_samples(grouped, config, 1).values():
        drawn = group[part.items.numpy()]
        assert (drawn == drawn[:, :1]).all()
    counts = np.bincount(log.items, minlength=81)
    drawn_counts = np.bincount(make_samples(grouped, config, 1)["train"].items[:, 1:].numpy().ravel(), minlength=81)
    assert np.corrcoef(counts[group == 1], drawn_counts[group == 1])[0, 1] > 0.7  # by popularity within it
    with pytest.raises(InputError, match="no groups"):
        make_samples(log, config, 1)


def test_one_group_draws_what_no_group_draws(log: Log) -> None:
    one = replace(log, item_group=np.ones(log.card.items + 1, np.int32))
    within = SMALL_SAMPLES.model_copy(update={"negatives_within": True})
    for split, part in make_samples(log, SMALL_SAMPLES, 1).items():
        assert np.array_equal(part.items, make_samples(one, within, 1)[split].items)


def test_shown_items_are_the_negatives_and_targets_without_them_are_left_out(log: Log) -> None:
    rng = np.random.default_rng(0)
    shown = rng.integers(1, 81, (len(log.items), 4)).astype(np.int32)
    shown[::3, 1:] = 0  # too few
    config = SMALL_SAMPLES.model_copy(update={"negative_rule": "shown"})
    for part in make_samples(replace(log, shown=shown), config, 1).values():
        assert (part.row % 3 != 0).all()
        assert np.array_equal(part.items[:, 1:], shown[part.row, :2])
    with pytest.raises(InputError, match="shown"):
        make_samples(log, config, 1)


def timed(log: Log) -> Log:
    """The log stored with times: each user clicks once a day, from a day of its own on."""
    lengths = np.diff(log.offsets)
    start = np.random.default_rng(1).integers(0, 30, len(lengths))
    times = np.concatenate([np.arange(length) + first for length, first in zip(lengths, start, strict=True)])
    frame = pl.DataFrame({"user": np.repeat(np.arange(1, len(lengths) + 1), lengths), "item": log.items})
    frame = frame.with_columns(category=pl.Series(log.categories), time=pl.Series(times))
    return store_log(log.card.model_copy(update={"name": "timed"}), frame, log.item_category)


def test_a_split_by_time_trains_on_the_past_alone(log: Log) -> None:
    stored = timed(log)
    times = pl.read_parquet(own_times(stored))["time"].to_numpy()
    config = SMALL_SAMPLES.model_copy(update={"split": "time"})
    splits = make_samples(stored, config, 1)
    first, second = np.quantile(times, (0.8, 0.9), method="higher")
    moments = {name: times[part.row.numpy()] for name, part in splits.items()}
    assert moments["train"].max() < first <= moments["validation"].min()
    assert moments["validation"].max() < second <= moments["test"].min()
    for part in splits.values():
        rows = part.row.numpy()
        assert ((rows > part.start.numpy()) & (rows < log.offsets[part.users.numpy() + 1])).all()
    counts = training_counts(stored, "time")
    assert counts.sum() == (times < first).sum()
    assert np.array_equal(counts, np.bincount(log.items[times < first], minlength=81))


def own_times(log: Log) -> str:
    from dare_core.files import store_root

    return str(store_root() / "logs" / log.card.name / "log.parquet")


def test_users_are_drawn_until_there_are_enough_samples(log: Log) -> None:
    everyone = make_samples(log, SMALL_SAMPLES, 1)
    fewer = make_samples(log, SMALL_SAMPLES.model_copy(update={"most_samples": 240}), 1)
    assert 200 < fewer["train"].size <= 240 < everyone["train"].size
    assert set(fewer["test"].users.tolist()) < set(everyone["test"].users.tolist())
    assert set(fewer["train"].users.tolist()) <= set(fewer["test"].users.tolist())
    again = make_samples(log, SMALL_SAMPLES.model_copy(update={"most_samples": 240}), 2)
    assert torch.equal(fewer["test"].users, again["test"].users)  # the same users for every seed
