"""The published code's differences switched on alone: what each changes and what it leaves, what is not scored, and
the ways to evaluate the same runs; and the table of settings, which must say what the code does."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from conftest import run_chapter, store_small_log

from dare_core.config import OFFICIAL, ModelConfig, SampleConfig, TrainingConfig
from dare_core.errors import InputError
from dare_core.evaluation.metrics import auc
from dare_core.evaluation.relevance import GainRule, Gains
from dare_core.files import project_root
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model
from dare_core.report import stored
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import CONTROL, SWITCHES, TOGETHER, GainSettings, PublishedCodeConfig
from dare_core.training.runs import Run, RunStore
from dare_core.turning import differences

SMALL: dict[str, Any] = {"logs": "by_hand", "seeds": 2, "history": 20, "targets": 4, "spacing": 3, "top_k": 5}
SMALL |= {"shortest_user": 34, "epochs": 1, "size": 4, "settings": "recipe", "switches": "all"}
ANY_CELL = GainRule(least_samples=10, least_cell=1, most_thin=1_000)


@pytest.fixture
def small() -> Experiment:
    store_small_log()
    return Experiment(PublishedCodeConfig.checked(SMALL), "by_hand", RunStore(progress=False))


def trained(experiment: Experiment, **changes: Any) -> dict[tuple[str, str], list[Run]]:
    config = PublishedCodeConfig.checked({**SMALL, **changes})
    return differences.trainings(Experiment(config, "by_hand", experiment.store), "recipe", config)


def test_each_switch_alone_changes_what_it_should(small: Experiment) -> None:
    runs = trained(small, seeds=1)
    assert {switch for switch, _ in runs} == {"none", *SWITCHES}
    own = {switch: runs[switch, "DARE"][0] for switch in ("none", *SWITCHES)}
    none, test = own["none"], small.samples(1)["test"]
    losses = {name: [line.train_loss for line in run.history] for name, run in own.items()}

    assert own["retrieve_padding"] is none, "no history is short: not trained"
    assert own[CONTROL].config.training.repetition == 1 and losses[CONTROL] != losses["none"]
    # Without evaluation mode the same weights are trained, and scored otherwise.
    assert losses["no_evaluation_mode"] == losses["none"]
    assert (own["no_evaluation_mode"].test_probability != none.test_probability).any()
    # A batch is 11 histories of three candidates: the rest has no score.
    left_out = len(test) % 11
    assert 0 < left_out == np.isnan(own["drop_last"].test_probability[:, 0]).sum()
    assert differences.left_out_share([own["drop_last"]]) == pytest.approx(left_out / len(test))
    assert not np.isnan(none.test_probability).any() and differences.left_out_share([none]) == 0
    for name in ("initialise_all", "single_samples", "fixed_samples", TOGETHER):
        assert losses[name] != losses["none"], name
    assert own[TOGETHER].config.training.official == OFFICIAL
    for name in OFFICIAL[1:]:
        assert own[name].config.training.official == (name,)


def test_fixed_samples_are_those_of_every_seed_and_the_scored_ones(small: Experiment) -> None:
    runs = trained(small, switches="fixed_samples")
    for switch, same in (("none", False), ("fixed_samples", True)):
        first, second = (small.store.samples(run.config)["test"] for run in runs[switch, "DARE"])
        assert torch.equal(first.items, second.items) is same and torch.equal(first.row, second.row)
        found = differences.auc_of_runs(small, runs[switch, "DARE"])
        by_hand = [auc(first.labels, run.test_probability) for run in runs[switch, "DARE"]]
        assert found[:, 0] == pytest.approx(by_hand) and found.shape == (2, 1 + len(set(first.users.tolist())))
        assert differences.seed_spread(found) == pytest.approx(abs(by_hand[0] - by_hand[1]) / 2**0.5)
    assert differences.seed_spread(found[:1]) is None


def test_samples_without_a_score_are_left_out(small: Experiment) -> None:
    runs = trained(small, switches="drop_last")
    found = differences.auc_by_switch(small, runs)
    probability = runs["drop_last", "TWIN"][1].test_probability
    kept = ~np.isnan(probability[:, 0])
    labels = small.samples(2)["test"].labels
    assert found["drop_last"]["TWIN"][1, 0] == pytest.approx(auc(labels[kept], probability[kept]))
    assert np.isfinite(found["drop_last"]["DARE minus TWIN"]).all()
    lead = found["none"]["DARE"] - found["none"]["TWIN"]
    assert (found["none"]["DARE minus TWIN"] == lead).all()


def test_padding_matters_where_histories_are_short(small: Experiment) -> None:
    assert differences.short_share(small) == 0
    for history, top_k, short in ((20, 20, True), (3, 5, True), (5, 5, False)):
        config = PublishedCodeConfig.checked({**SMALL, "history": history, "top_k": top_k, "shortest_user": 20})
        share = differences.short_share(Experiment(config, "by_hand", small.store))
        assert (share > 0) is short and (history != 3 or share == 1)
    runs = trained(small, top_k=20, shortest_user=20, switches="retrieve_padding", seeds=1)
    first, second = (runs[switch, "DARE"][0].test_probability for switch in ("none", "retrieve_padding"))
    assert (first != second).any()


def test_the_filter_of_cases_finds_leads_of_one_side() -> None:
    """Of five candidates DARE leads by .3 in one, TWIN in two, neither in one, and one is not judged."""
    dare, twin = np.array([[0.9, 0.2, 0.5], [0.1, 0.5, np.nan]]), np.array([[0.5, 0.6, 0.4], [0.9, 0.5, 0.1]])
    (passing,) = differences.leading([dare], [twin])
    (swapped,) = differences.leading([twin], [dare])
    np.testing.assert_array_equal(passing, [[1, 0, 0], [0, 0, np.nan]])
    np.testing.assert_array_equal(swapped, [[0, 1, 0], [1, 0, np.nan]])
    assert np.nanmean(differences.leading([dare], [twin], least=0.05)[0]) == 2 / 5


def test_maps_are_transposed_and_nothing_else() -> None:
    def build() -> dict[str, torch.Tensor]:
        model = build_model(ModelConfig(name="TWIN (w/ proj.)", size=4), Counts(30, 5, 10), TrainingConfig(), seed=1)
        before = {name: value.clone() for name, value in model.state_dict().items()}
        differences.transpose_maps(model)
        for name, value in model.state_dict().items():
            mapped = ".maps." in name
            assert torch.equal(value, before[name].T if mapped else before[name]), name
            assert not mapped or not torch.equal(value, before[name]), "a map differs from its transpose"
        return before

    assert sum(".maps." in name for name in build()) == 12


def test_the_ideal_at_k_lowers_every_k_but_the_last() -> None:
    information = np.array([[[3.0, 2.0, 1.0, 0.0]]])
    gains = Gains(np.array([[True]]), information, information, information)
    order = np.array([[[0, 3, 1]]])
    (own,), (at_end,) = (differences.ndcg_of([gains], [order], end) for end in (False, True))
    assert own[0, 0, -1] == at_end[0, 0, -1] and own[0, 0, 0] == 1
    ideal = 3 + 2 / np.log2(3) + 1 / 2
    assert at_end[0, 0, 0] == pytest.approx(3 / ideal) and (at_end[0, 0, :2] < own[0, 0, :2]).all()


def test_the_chapter_shows_every_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    store_small_log()
    monkeypatch.setattr(stored, "stored_folder", lambda: tmp_path / "stored")
    monkeypatch.setattr(differences, "RULES", {"ours": ANY_CELL})
    chapter = run_chapter("published_code", **SMALL | {"switches": "drop_last"})
    tables = chapter["record"].tables
    assert len(tables["moved"]) == 6 and len(tables["ndcg"]) == 4, "k = 1 and K, two ideals"
    for row in tables["moved"]:
        assert (row["samples left out"] > 0) == (row["switched on"] == "drop_last")
        assert row["moved, low"] <= row["moved"] <= row["moved, high"]
        assert row["switched on"] != "none" or row["moved"] == 0
    cases, maps, conflict = tables["compared"]
    assert 0 <= cases["as published"] <= 1 and maps["as published"] != maps["otherwise"]
    assert conflict["difference"] == pytest.approx(conflict["as published"] - conflict["otherwise"])
    levels = {(row["ideal"], row["k"]): row["DARE"] for row in tables["ndcg"]}
    assert levels["at k", 5] == levels["at K", 5] and levels["at k", 1] > levels["at K", 1]
    drawn = next(shown for shown in chapter["shown"] if "[figure]" in repr(shown))
    assert "alt=" in drawn.html and "DARE minus TWIN" in drawn.text and "stored" not in drawn.text

    stored.keep(chapter["record"].config.results_path / "published_code.json")
    again = run_chapter("published_code", **SMALL | {"switches": "drop_last"})
    assert again["record"].store.computed == 0 and again["record"].tables["moved"] == tables["moved"]
    drawn, every = (next(s.text for s in again["shown"] if mark in repr(s)) for mark in ("[figure]", "Test AUC with"))
    assert "By Hand, stored, steps by the recipe" in drawn and "By Hand, steps by the recipe" in drawn
    assert every.count("last batch dropped") == 6, "the stored rows and this run's"


def test_the_table_of_settings_says_what_the_code_does() -> None:
    parts: dict[str, Any] = {"samples": SampleConfig(), "training": TrainingConfig(), "model": ModelConfig()}
    parts["gains"] = GainSettings()
    entries = yaml.safe_load((project_root() / "book" / "published_settings.yml").read_text("utf-8"))
    for entry in entries:
        if "default" in entry:
            part, _, name = entry["default"].partition(".")
            value = getattr(parts[part], name)
            written = "on" if value is True else f"{value:,}" if isinstance(value, int) else str(value)
            assert written in str(entry["here"]), entry["setting"]
    assert sorted(entry["switch"] for entry in entries if "switch" in entry) == sorted(OFFICIAL)
    assert {"setting", "published", "here", "why"} == set(differences.settings_rows()[0])
    for rule in (
        differences.PUBLISHED.least_samples,
        differences.PUBLISHED.least_cell,
        differences.PUBLISHED.most_thin,
    ):
        assert any(str(rule) in str(entry["published"]) for entry in entries)
    assert {*differences.TITLES} == {*SWITCHES} == {*differences.CHANGES} - {differences.NONE}


@pytest.mark.parametrize(
    "values, said",
    [({"switches": "no_such"}, "switches"), ({"settings": "recipe,own"}, "settings"), ({"models": "DARE"}, "TWIN")],
)
def test_wrong_parameters_are_one_sentence(values: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        PublishedCodeConfig.checked(values)
