"""Attention accuracy: gains, NDCG, learned attention and retrieval against brute force, and worlds that must fail."""

import dataclasses
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from conftest import run_chapter
from scipy.spatial.distance import jensenshannon
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score, ndcg_score
from sklearn.metrics.cluster import expected_mutual_information

from dare_core.config import ModelConfig, SampleConfig
from dare_core.data.logs import Log, store_log
from dare_core.data.samples import Samples, make_samples
from dare_core.errors import InputError
from dare_core.evaluation.intervals import wilson
from dare_core.evaluation.relevance import (
    Cells,
    GainRule,
    cells,
    expected_information,
    information_gains,
    relevance_counts,
)
from dare_core.evaluation.retrieval import (
    RULES,
    candidate_ndcg,
    divergence,
    jaccard,
    learned_attention,
    left_out_share,
    mean_items,
    ndcg,
    own_first,
    rank_correlation,
    retrieve,
    retrieve_by_rule,
    retrieved_mask,
    same_category_counts,
    search,
    symmetry,
)
from dare_core.models.click_model import ClickModel
from dare_core.models.zoo import build_model
from dare_core.report.claims import load_claims
from dare_core.report.show import Shown
from dare_core.report.verdict import LedgerRow
from dare_core.studies.attention import (
    MET,
    control_row,
    independent_rows,
    left_out,
    ndcg_at_k,
    position_slope,
    recent_other,
    slope_rows,
    spacing_dip,
    truth_correlation,
    worlds_of,
)
from dare_core.studies.experiment import Experiment
from dare_core.studies.relevance import relevance_truth, true_map
from dare_core.studies.settings import StudyConfig
from dare_core.training.runs import RunStore, counts_of
from tests.conftest import make_log

SMALL = SampleConfig(history=20, targets=4, spacing=3, shortest_user=25, negatives=2)
CONTROLS = StudyConfig.checked({"targets": 10})
QUICK = {"world_users": 40, "seeds": 2, "epochs": 1, "targets": 5}


@pytest.fixture
def splits(log: Log) -> dict[str, Samples]:
    return make_samples(log, SMALL, 1)


def model_of(log: Log, name: str, top_k: int = 5, scale: float = 1.0) -> ClickModel:
    model = build_model(ModelConfig(name=name, size=4, top_k=top_k), counts_of(log, SMALL), seed=3)
    with torch.no_grad():
        for table in model.embedding_parameters():
            table *= 100 * scale  # as far apart as trained ones
    return model.eval()


def test_ndcg_by_hand_and_by_brute_force() -> None:
    by_hand = ndcg(np.array([[3.0, 0.0, 1.0]]), np.array([[2, 0]]))
    assert by_hand[0] == pytest.approx([1 / 3, (1 + 3 / np.log2(3)) / (3 + 1 / np.log2(3))])
    rng = np.random.default_rng(0)
    gains = rng.exponential(size=(30, 12)) * (rng.random((30, 12)) < 0.5)
    order = rng.permuted(np.tile(np.arange(12), (30, 1)), axis=1)[:, :7]
    order[:5, 4:] = -1
    found, published = ndcg(gains, order), ndcg(gains, order, ideal_at_end=True)
    for i, k in product(range(30), range(1, 8)):
        taken = sum(gains[i, c] / np.log2(r + 2) for r, c in enumerate(order[i, :k]) if c >= 0)
        ideal = [sum(g / np.log2(r + 2) for r, g in enumerate(sorted(gains[i], reverse=True)[:n])) for n in (k, 7)]
        assert found[i, k - 1] == pytest.approx(taken / ideal[0])
        assert published[i, k - 1] == pytest.approx(taken / ideal[1])
    assert np.isnan(ndcg(np.zeros((1, 4)), np.array([[0, 1]]))).all()


def test_ndcg_equals_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    gains, scores = rng.exponential(size=(20, 15)), rng.normal(size=(20, 15))
    found = ndcg(gains, np.argsort(-scores, 1)[:, :9])
    for k in (1, 4, 9):
        assert found[:, k - 1].mean() == pytest.approx(ndcg_score(gains, scores, k=k))


def test_chance_level_is_the_mean_over_all_permutations() -> None:
    rng = np.random.default_rng(2)
    totals = rng.integers(1, 40, (12, 2))
    hits = np.stack([rng.integers(0, t.sum() + 1, 6) for t in totals])
    found = expected_information(totals, hits)
    for (negative, positive), line, values in zip(totals, hits, found, strict=True):
        for m, value in zip(line, values, strict=True):
            table = np.array([[m], [negative + positive - m]]), np.array([[positive, negative]])
            contingency = (table[0] * table[1] / (negative + positive)).astype(np.int64)
            contingency[0, 0], contingency[1, 0] = min(m, positive), positive - min(m, positive)
            contingency[0, 1] = m - contingency[0, 0]
            contingency[1, 1] = negative - contingency[0, 1]
            empty = (contingency.sum(0) == 0).any() or (contingency.sum(1) == 0).any()
            nats = 0.0 if empty else expected_mutual_information(contingency, int(negative + positive))
            expected = nats / np.log(2)
            assert value == pytest.approx(expected, abs=1e-10)
    labels = np.array([1, 1, 0, 0, 0])
    shuffled = [np.isin(np.arange(5), chosen) for chosen in combinations(range(5), 2)]
    every = np.mean([mutual_info_score(hit, labels) for hit in shuffled]) / np.log(2)
    assert expected_information(np.array([[3, 2]]), np.array([[2]]))[0, 0] == pytest.approx(every)


def test_cells_by_brute_force_in_any_blocks(splits: dict[str, Samples]) -> None:
    train, test = splits["train"], splits["test"]
    counted = train.batch(slice(None))
    histories, targets = counted.history_categories.numpy(), counted.target_categories.numpy()
    shown = test.batch(slice(None)).history_categories.numpy()
    for size in (1, 2**29):
        (found, *rest) = cells(train, test, 20, size)
        assert bool(rest) == (size == 1)
        assert found.information.min() >= 0 and (found.information[~found.behaviours] == 0).all()
        for i in (0, len(found.row) // 2, len(found.row) - 1):
            row, candidate = found.row[i], found.candidate[i]
            target = int(test.categories[row, candidate])
            of_target = targets == target
            assert list(found.totals[i]) == [of_target[:, 1:].sum(), of_target[:, 0].sum()]
            assert found.totals[i].sum() >= 20
            for column in (0, 7, 19):
                behaviour = shown[row, column]
                hit = (histories[:, column] == behaviour) & (behaviour > 0)
                assert found.positive[i, column] == (hit & of_target[:, 0]).sum()
                assert found.negative[i, column] == (hit[:, None] & of_target)[:, 1:].sum()
                x = np.repeat(hit[:, None], 3, 1)[of_target]
                y = np.repeat([[1, 0, 0]], len(hit), 0)[of_target]
                assert found.information[i, column] == pytest.approx(mutual_info_score(x, y) / np.log(2), abs=1e-9)
                assert found.raises[i, column] == (x.any() and y[x].mean() > y.mean() + 1e-12)


def test_gains_leave_out_what_is_thin(splits: dict[str, Samples]) -> None:
    train, test = splits["train"], splits["test"]
    everything = information_gains(train, test, GainRule(1, 0, 1_000))
    few = information_gains(train, test, GainRule(60, 12, 1_000))
    strict = information_gains(train, test, GainRule(60, 12, 3))
    kept = information_gains(train, test, GainRule(60, 12, 1_000, published=True))
    assert everything.judged.mean() > few.judged.mean() > strict.judged.mean()
    assert ((few.information == 0) | (few.information == everything.information)).all()
    assert (few.information > 0).sum() < (kept.information > 0).sum()
    assert np.array_equal(kept.information[kept.judged], everything.information[kept.judged])
    assert (everything.above_chance <= everything.information).all()
    kinds = everything.signed == everything.information, everything.signed == 0
    assert (kinds[0] | kinds[1]).all()
    assert 0.2 < (everything.signed > 0).sum() / (everything.information > 0).sum() < 0.9
    assert not information_gains(train, test, GainRule(10**6, 0, 1_000)).judged.any()


def test_perfect_retrieval_has_ndcg_one_and_a_shifted_history_less(splits: dict[str, Samples]) -> None:
    found = information_gains(splits["train"], splits["test"], GainRule(1, 0, 1_000))
    perfect = np.argsort(-found.information, -1, kind="stable")[..., :5]
    values = candidate_ndcg(found.information, perfect, found.judged)
    assert np.nanmin(values) == pytest.approx(1.0)
    shifted = candidate_ndcg(np.roll(found.information, 1, -1), perfect, found.judged)
    assert np.nanmean(shifted) < 0.9


@pytest.mark.parametrize("name", ["DARE", "DIN", "TWIN (hard)", "ETA", "TWIN (w/ proj.)"])
def test_retrieval_is_the_model_s_own(log: Log, splits: dict[str, Samples], name: str) -> None:
    test, model = splits["test"], model_of(log, name)
    output = model.compute(test.batch(slice(None)))
    order = retrieve(model, test, 5, items=True).order
    assert np.array_equal(retrieved_mask(order, test.history), (output.weights > 0).numpy())
    scores = np.take_along_axis(output.scores.detach().numpy(), np.maximum(order, 0), -1)
    assert (np.diff(np.where(order < 0, -np.inf, scores), axis=-1)[order[..., 1:] >= 0] <= 0).all()
    without = retrieve(model, test, 5).order
    assert np.array_equal(order, without) == (name == "DIN")


@pytest.mark.parametrize("name", ["DARE", "TWIN-4E", "TWIN (w/ proj.)", "TWIN (hard)"])
def test_learned_attention_is_the_score_without_items(log: Log, splits: dict[str, Samples], name: str) -> None:
    test, model = splits["test"], model_of(log, name)
    batch = test.batch(slice(0, 12))
    scores = search(model, batch, items=False).scores.numpy()
    learned = learned_attention(model, np.arange(1, log.card.categories + 1), test.history)
    history, targets = batch.history_categories.numpy(), batch.target_categories.numpy()
    for h, c, column in product(range(12), range(3), (0, 4, 19)):
        if history[h, column]:
            value = learned[targets[h, c] - 1, history[h, column] - 1, test.history - column - 1]
            assert value == pytest.approx(scores[h, c, column], abs=1e-4)
    turned = learned.transpose(1, 0, 2)
    assert np.allclose(learned, turned, atol=1e-4) == (name in ("DARE", "TWIN (hard)"))


def test_mean_items_are_weighted_by_clicks(log: Log) -> None:
    clicks = np.bincount(log.items, minlength=log.card.items + 1)
    categories = np.array([3, 1])
    weights = mean_items(log.item_category, clicks, categories)
    of_three = np.flatnonzero(log.item_category == 3)
    assert np.allclose(weights.toarray()[0, of_three], clicks[of_three] / clicks[of_three].sum())
    assert np.allclose(weights.sum(1), 1)
    din = model_of(log, "DIN")
    learned = learned_attention(din, categories, 4, weights)
    assert np.allclose(learned, learned[..., :1]) and learned[0, 0, 0] != learned[0, 1, 0]
    dare = model_of(log, "DARE")
    assert not np.allclose(learned_attention(dare, categories, 4), learned_attention(dare, categories, 4, weights))


def test_a_gain_that_makes_a_click_less_likely_counts_only_without_its_sign() -> None:
    """By hand: of 4 clicked and 8 other samples, a cell of 3 clicked and 1 other, its mirror, and one of chance."""
    one = np.array([0])
    found = Cells(one, one, np.array([[3, 1, 1]]), np.array([[1, 7, 2]]), np.array([[8, 4]]), np.ones((1, 3), bool))
    assert found.raises.tolist() == [[True, False, False]]
    assert found.information[0, 0] == pytest.approx(found.information[0, 1]) and found.information[0, 2] < 1e-12


def test_rules_and_shares_by_brute_force(splits: dict[str, Samples]) -> None:
    test = splits["test"]
    batch = test.batch(slice(None))
    history, targets = batch.history_categories.numpy(), batch.target_categories.numpy()
    orders = {name: retrieve_by_rule(name, test, 6, 0).order for name in RULES}
    share = {name: left_out_share(order, test) for name, order in orders.items()}
    count = same_category_counts(test)
    for h, c in product(range(8), range(3)):
        same = [j for j in range(19, -1, -1) if history[h, j] == targets[h, c]]
        other = [j for j in range(19, -1, -1) if history[h, j] not in (0, targets[h, c])]
        assert list(orders["same category, then newest"][h, c]) == (same + other)[:6]
        assert list(orders["newest"][h, c]) == sorted(same + other, reverse=True)[:6]
        assert count[h, c] == len(same)
        for name, order in orders.items():
            room = min(len(same), 6)
            missing = room - len(set(order[h, c]) & set(same))
            assert share[name][h, c] == pytest.approx(missing / room) if same else np.isnan(share[name][h, c])
    assert np.nanmax(share["same category, then newest"]) == 0  # the rule that does what A4 asks for
    assert np.nanmean(share["newest"]) > 0.2 and np.nanmean(share["random"]) > 0.3
    nothing = np.full((len(test), 3, 6), -1)
    assert np.nanmin(left_out_share(nothing, test)) == 1
    assert len(np.unique(orders["random"][0, 0])) == 6
    assert not np.array_equal(orders["random"], retrieve_by_rule("random", test, 6, 1).order)


def test_recent_others_are_the_attention_weights(log: Log, splits: dict[str, Samples]) -> None:
    test, model = splits["test"], model_of(log, "TWIN", scale=0.3)
    batch = test.batch(slice(None))
    weights = search(model, batch, items=False).weights.numpy()
    found = retrieve(model, test, 5, recent=4).recent_other
    history, targets = batch.history_categories.numpy(), batch.target_categories.numpy()
    for h, c in product(range(10), range(3)):
        expected = sum(weights[h, c, j] for j in range(16, 20) if history[h, j] != targets[h, c])
        assert found[h, c] == pytest.approx(expected, abs=1e-6)
    assert found.min() >= 0 and found.max() <= 1 + 1e-6 and found.std() > 0


def test_closeness_by_scipy() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.normal(size=(4, 5, 6)), rng.integers(0, 3, (4, 5, 6)).astype(float)
    found = rank_correlation(first, second)
    assert found[2] == pytest.approx(spearmanr(first[2].ravel(), second[2].ravel()).statistic)
    relevance = np.exp(first) / np.exp(first).sum((1, 2), keepdims=True)
    assert divergence(relevance, first) == pytest.approx(np.zeros(4), abs=1e-12)
    expected = jensenshannon(second[1].ravel(), relevance[1].ravel(), 2) ** 2
    assert divergence(second, first)[1] == pytest.approx(expected)


def test_symmetry_and_own_category() -> None:
    rng = np.random.default_rng(4)
    square = rng.normal(size=(40, 40))
    assert symmetry(square + square.T) == pytest.approx(1.0)
    assert symmetry(square - square.T) == pytest.approx(-1.0)
    assert abs(symmetry(square)) < 0.1
    assert own_first(square + 10 * np.eye(40)) == 1
    assert own_first(square - 10 * np.eye(40)) == 0
    assert np.mean([own_first(rng.normal(size=(40, 40))) for _ in range(300)]) == pytest.approx(1 / 40, abs=0.005)


def test_jaccard_of_sets() -> None:
    first, second = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool), np.array([[0, 1, 1, 0], [0, 0, 0, 0]], bool)
    assert list(jaccard(first, second)) == [1 / 3, 1]


def test_chance_of_the_heat_map_is_that_of_its_cells(splits: dict[str, Samples]) -> None:
    counts = relevance_counts(splits["train"], 4, 5)
    chance = counts.chance()
    hits = np.asarray(counts.hits.sum(0)).reshape(4, 4, 5, 2).sum(3).astype(int)
    totals = np.asarray(counts.samples.sum(0)).reshape(4, 2).astype(int)
    expected = expected_information(totals[2:3], hits[2, 1, 3:4][None])[0, 0]
    assert chance[2, 1, 3] == pytest.approx(expected)
    assert 0 < chance.mean() < 3 * counts.floor().mean()


def published(log: Log) -> str:
    """Store a log by hand as a published one; returns its name."""
    users = np.repeat(np.arange(1, log.card.users + 1), np.diff(log.offsets))
    frame = pl.DataFrame({"user": users, "item": log.items, "category": log.categories})
    return store_log(log.card.model_copy(update={"kind": "published log"}), frame, log.item_category).card.name


def by_quantity(chapter: dict[str, Any]) -> dict[tuple[str, str], LedgerRow]:
    return {(r.claim, r.quantity): r for r in chapter["record"].rows}


def figures(chapter: dict[str, Any]) -> list[Shown]:
    return [shown for shown in chapter["shown"] if shown and "alt=" in shown.html]


QUANTITIES = {(claim, q.quantity) for claim in ("A2", "A3", "A4", "S1") for q in load_claims()[claim].quantities}


def test_study_judges_its_claims_and_writes_its_tables(own_store: Path) -> None:
    chapter = run_chapter("attention", **QUICK, least_samples=15, least_cell=2, cases=2)
    rows = by_quantity(chapter)
    assert set(rows) == QUANTITIES
    assert all(r.low <= r.ours <= r.high for r in rows.values() if r.ours is not None and r.low is not None)
    assert "true relevance" in rows["A2", "truth_correlation_dare_minus_twin"].note
    assert "built into" in rows["S1", "own_category_first"].note
    folder = chapter["config"].results_path
    table = pl.read_csv(folder / "attention_retrieval.csv")
    assert set(table["model or rule"]) == {"DARE", "TWIN", "DIN", "TWIN-4E", *RULES}
    left = dict(table.select("model or rule", "same category left out").iter_rows())
    assert left["same category, then newest"] == 0 and left["newest"] > 0.2
    (view,) = chapter["views"].values()
    levels = [ndcg_at_k(view, "information", name)[:, 0] for name in ("DARE", "TWIN")]
    assert rows["A3", "ndcg_dare_over_twin"].ours == pytest.approx(np.exp(np.log(levels[0] / levels[1]).mean()))
    assert f"NDCG of TWIN {levels[1].mean():.3f}" in rows["A3", "ndcg_dare_over_twin"].note
    curves = pl.read_csv(folder / "attention_curves.csv").filter(pl.col("k") == 20, pl.col("gain") == "information")
    assert dict(curves.select("model or rule", "NDCG").iter_rows())["TWIN"] == pytest.approx(levels[1].mean())
    drawn = figures(chapter)  # NDCG, maps, NDCG by true relevance, kept, cases
    assert len(drawn) == 5 and all("DARE" in shown.text for shown in drawn)


def test_every_seed_of_a_generated_log_is_read_on_its_own_world() -> None:
    """Two worlds measured together are the same two worlds measured alone."""
    settings = {**QUICK, "models": "DARE,TWIN", "least_samples": 15, "least_cell": 2}
    (both,) = run_chapter("attention", **settings)["views"].values()
    (first,) = run_chapter("attention", **settings | {"seeds": 1})["views"].values()
    found = [statistic(both, "DARE") for statistic in (recent_other, left_out, truth_correlation)]
    alone = [statistic(first, "DARE") for statistic in (recent_other, left_out, truth_correlation)]
    assert [f.shape for f in found] == [(2, 1)] * 3 and [a.shape for a in alone] == [(1, 1)] * 3
    assert [f[0, 0] for f in found] == [a[0, 0] for a in alone]
    logs = [both.experiment.log_of(seed) for seed in (1, 2)]
    for at, log in enumerate(logs):
        train = make_samples(log, both.experiment.run_config("DARE", at + 1).samples, at + 1)["train"]
        counts = relevance_counts(train, 10, 10)
        assert (both.counts[at].categories == counts.categories).all()
        assert np.array_equal(both.true_maps[at], true_map(log, counts))
        again = relevance_truth(log, both.splits[at]["test"])
        assert np.array_equal(both.truth[at], again)
    assert logs[0].fingerprint != logs[1].fingerprint


def test_on_a_published_log_users_and_seeds_are_left_out(own_store: Path) -> None:
    """One column per group of users; relevance is the mutual information, the own category Wilson's interval."""
    name = published(make_log(users=90, shortest=30))
    settings = {"logs": name, "seeds": 2, "epochs": 1, "targets": 4, "spacing": 3, "history": 20, "shortest_user": 25}
    chapter = run_chapter("attention", **settings, top_k=5, least_samples=20, least_cell=2, cases=2)
    rows, (view,) = by_quantity(chapter), chapter["views"].values()
    for statistic in (recent_other, left_out, truth_correlation):
        replicates = statistic(view, "TWIN")
        assert replicates.shape == (2, 51) and (replicates[:, 1:] != replicates[:, :1]).any()
    assert "mutual information" in rows["A2", "truth_correlation_dare_minus_twin"].note
    test, groups = view.splits[0]["test"], view.experiment.groups(view.splits[0]["test"])
    kept = (groups != 3)[:, None] & (view.same_category[0] > 0)
    shares = view.retrieved["TWIN"][0].recent_other
    assert recent_other(view, "TWIN")[0, 4] == pytest.approx(shares[kept].mean())
    train = view.splits[0]["train"]
    inside = torch.isin(train.users, test.users[torch.from_numpy(groups != 3)])
    names = ("users", "row", "start", "items", "categories", "new", "seen")
    fewer = dataclasses.replace(train, **{n: getattr(train, n)[inside] for n in names})
    counts = relevance_counts(fewer, 10, 10)
    order = [list(counts.categories).index(c) for c in view.counts[0].categories]
    information = counts.mutual_information()[np.ix_(order, order)]
    expected = np.nanmean(rank_correlation(information, view.maps["TWIN"][0]))
    assert truth_correlation(view, "TWIN")[0, 4] == pytest.approx(expected)
    first, count = rows["S1", "own_category_first"], len(view.priors[0].categories)
    share = np.mean([own_first(relevance) for relevance in view.prior_relevance])
    assert first.ours == pytest.approx(share - 1 / count)
    assert first.low + 1 / count == pytest.approx(wilson(share, count).low) and first.high <= 1 - 1 / count
    assert first.verdict in ("holds", "undecided") and first.worlds is None
    assert rows["S1", "relevance_symmetry"].verdict == "cannot be tested here"  # shown, not judged


def test_where_no_target_is_left_a3_cannot_be_tested() -> None:
    chapter = run_chapter("attention", **QUICK | {"least_samples": 10**6, "models": "DARE,TWIN", "seeds": 1})
    rows = {r.quantity: r for r in chapter["record"].rows}
    assert rows["ndcg_dare_over_twin"].ours is rows["own_category_first"].ours is None
    assert rows["ndcg_dare_over_twin"].verdict == "cannot be tested here"
    assert rows["overrating_twin_minus_dare"].ours is not None
    assert "not computed here: DIN" in rows["ndcg_dare_over_din"].note
    by_k = [shown.text for shown in figures(chapter) if "NDCG of retrieval by k" in shown.text]
    assert ["Generated log: DARE" in text for text in by_k] == [False, True], "by mutual information, by true relevance"


def test_any_legal_setting_ends_in_a_result_or_in_a_sentence() -> None:
    """Positions beyond the history are clamped, as where relevance is counted."""
    small = {**QUICK, "models": "DARE,TWIN", "seeds": 1, "targets": 4}
    for changes, positions in (({"history": 5}, 5), ({"positions": 201}, 200), ({"history": 1}, 1)):
        (view,) = run_chapter("attention", **small | changes)["views"].values()
        shape = (10, 10, positions)
        assert view.maps["DARE"][0].shape == view.counts[0].mutual_information().shape == shape
    with pytest.raises(InputError, match="SDIM"):
        run_chapter("attention", **small | {"models": "DARE,SDIM"})


@pytest.mark.parametrize("log", ["generated", "independent"])
def test_everything_can_be_shown_where_no_target_is_judged(log: str) -> None:
    """By the published thresholds a log may be too small; *independent* has no true relevance either."""
    chapter = run_chapter("attention", **QUICK | {"logs": log, "most_thin": 0, "least_cell": 10**6, "seeds": 1})
    shown = [shown.text for shown in chapter["shown"] if shown]
    assert len(shown) == 10 and all(shown)  # the strip, figures and tables


def test_true_relevance_ranks_its_own_world_best() -> None:
    config = StudyConfig.checked(QUICK)
    store = RunStore(progress=False)
    world = Experiment(config, "generated", store)
    test = world.samples(1)["test"]
    truth = relevance_truth(world.log, test)
    assert truth is not None
    judged = np.ones(truth.shape[:2], bool)
    quality = {
        rule: np.nanmean(candidate_ndcg(truth, retrieve_by_rule(rule, test, 20).order, judged)) for rule in RULES
    }
    assert 1 > quality["same category, then newest"] > quality["newest"] > quality["random"]
    counts = relevance_counts(world.samples(1)["train"], 3, 10)
    relevance = true_map(world.log, counts)
    assert relevance is not None
    assert (np.diff(relevance[1, 1, 2:]) < 0).all() and relevance[1, 1, 0] > relevance[1, 0, 0]


def test_attention_learns_the_decay_only_where_there_is_one() -> None:
    """One of the two tests here that train: DARE on three worlds of each kind."""
    store = RunStore(progress=False)
    alone = StudyConfig.checked({"targets": 1, "history": 50, "top_k": 10})
    null, dip = slope_rows(worlds_of(alone, "no_decay", 3, 600, store))
    (default,) = slope_rows(worlds_of(StudyConfig.checked({}), "generated", 3, 200, store))
    # The intervals themselves are the chapter's: one in twenty leaves 0 out by chance, which a test must not do.
    assert default["met"] == "yes" and default["mean"] < -0.05
    for row in (null, dip):  # further from 0 than this, it must not be told from 0; the slope to tell from is -.9
        assert abs(row["mean"]) < 0.005 or (row["met"] == "yes" and abs(row["mean"]) < 0.02)


def test_spacing_dip_by_hand(log: Log) -> None:
    model = model_of(log, "TWIN")
    table = model.embeddings.table(("attention", "target"), "position")
    with torch.no_grad():
        table.fill_(1.0)  # a score of 4 / sqrt(4) at every position
        table[[5, 10, 15]] = 0.25
    assert spacing_dip(model, 20, 5) == pytest.approx(-1.5)
    assert spacing_dip(model, 20, 12) == pytest.approx(0.0)
    with torch.no_grad():
        table[1:] = torch.arange(20, 0, -1).unsqueeze(1).log()  # falls with position
    assert position_slope(model, 20) < -0.5


def test_nothing_is_learned_where_nothing_can_be_predicted() -> None:
    """The other one: four models on three small worlds."""
    worlds = worlds_of(CONTROLS, "independent", 3, 100, RunStore(progress=False))
    rows = {r["control"].partition(": ")[2]: r for r in independent_rows(worlds)}
    for name, row in rows.items():  # see the test above: an interval may miss by chance, its middle not by much
        # TWIN's has a standard error of about .1 over three such worlds: above the bound it must not be sure.
        assert row["mean"] < 0.06 or row["must"] == "above 0" or row["mean, low"] <= 0, name
    assert rows["DARE untrained minus random"]["mean"] > 0.2
    assert abs(rows["TWIN-4E trained minus random"]["mean"]) < 0.05
    assert set(rows) >= {"TWIN-4E trained minus TWIN-4E untrained", "DIN trained minus DIN untrained"}


def test_bounds_of_the_controls() -> None:
    expected = {  # by interval: below 0, around it, above it
        "contains 0": (False, True, False),
        "below 0": (True, False, False),
        "above 0": (False, False, True),
        "not above 0": (True, True, False),
    }
    assert {must: tuple(met(low, low + 2) for low in (-3, -1, 1)) for must, met in MET.items()} == expected
    found = control_row("slope", "no_decay", [1.0, 2.0, 3.0], "below 0")
    assert (found["mean"], found["met"]) == (2, "no")
    assert found["mean, high"] - 2 == pytest.approx(4.3027 / np.sqrt(3), rel=1e-4)
    assert 2 - found["mean, low"] == pytest.approx(found["mean, high"] - 2)
