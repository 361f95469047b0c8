"""The Discriminability chapter: its comparisons, the null world, and what it writes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from conftest import run_chapter

from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.evaluation.discriminability import cluster, discriminability, representations
from dare_core.report.claims import load_claims
from dare_core.studies.discriminability import (
    KINDS,
    R1,
    R2,
    RULE,
    SUFFIXES,
    ModelClusterings,
    at_every,
    cluster_models,
    compare,
    mean,
)
from dare_core.studies.experiment import Experiment
from dare_core.studies.settings import DiscriminabilityConfig, StudyConfig
from dare_core.training.runs import RunStore

QUICK = {"world_users": 120, "seeds": 1, "epochs": 1, "targets": 3, "history": 50, "shortest_user": 60}


def experiment(name: str, users: int = 120) -> Experiment:
    config = StudyConfig.checked({**QUICK, "world_users": users})
    return Experiment(config, name, RunStore(progress=False))


def test_no_representation_tells_anything_where_nothing_can_be_predicted() -> None:
    """Independent world: within 5 standard deviations of permuted labels for every model, kind and number. The
    check can fail: on the generated world the rule's clusters tell more by far. (The rule has a larger world:
    with few users its clusters of repeated items hold two or three samples.)"""
    numbers = (2, 10, 30)
    world = experiment("independent")
    world.train(["DARE", "DIN"])
    clustered = cluster_models(world, ["DARE", "DIN"], numbers, 1)
    large = {name: cluster_models(experiment(name, 600), [], numbers, 1) for name in ("independent", "generated")}

    def scores(one: ModelClusterings) -> np.ndarray:
        return one.above_chance[0, 0] / one.numbers("spread")[0]

    for kind in KINDS:
        for name in ("DARE", "DIN"):
            assert (abs(scores(clustered.models[kind][name])) < 5).all(), (kind, name)
        assert (abs(scores(large["independent"].models[kind][RULE])) < 5).all()
        assert (scores(large["generated"].models[kind][RULE]) > 10).all()


def test_every_seed_of_a_generated_log_is_clustered_on_its_own_world() -> None:
    config = StudyConfig.checked({**QUICK, "world_users": 30, "seeds": 2})
    both = Experiment(config, "generated", RunStore(progress=False))
    both.train(["TWIN"])
    clustered = cluster_models(both, ["TWIN"], (2, 5), 2)
    for kind in KINDS:
        assert clustered.models[kind]["TWIN"].above_chance.shape == (2, 1, 2)
        assert clustered.models[kind][RULE].plain.shape == (2, 1, 2)
    log, run = both.log_of(2), both.runs["TWIN", 2]
    test = make_samples(log, run.config.samples, 2)["test"]
    whole = representations(run.model(log), test, ("whole input",))["whole input"]
    clusters = cluster(whole.reshape(test.size, -1), 5, 1).reshape(test.items.shape)
    found = clustered.models["whole input"]["TWIN"].found[1][1][1]  # world 2, K-means seed 1, 5 clusters
    assert found.plain == discriminability(clusters, 5).plain and log.fingerprint != both.log.fingerprint


def test_comparisons_say_what_the_claims_say() -> None:
    """By hand: TR gap, decoupling gap; every quantity of the claims is computed for both representations."""
    values = {"DARE": 0.9, "TWIN": 0.7, "DARE (w/o TR)": 0.4, "TWIN (w/o TR)": 0.3, "TWIN-4E": 0.8, "DIN": 0.6}

    def of(quantity: str) -> float:
        return sum(w * values[m] for m, w in (R1 | R2)[quantity][0].items())

    assert of("mi_dare_minus_twin") == pytest.approx(0.2)
    assert of("mi_twin_4e_minus_twin") == pytest.approx(0.1)
    assert of("mi_twin_minus_din") == pytest.approx(0.1)
    assert of("mi_tr_minus_concatenation") == pytest.approx((0.5 + 0.4) / 2)
    assert of("mi_tr_gap_minus_decoupling_gap") == pytest.approx((0.5 + 0.4) / 2 - (0.2 + 0.1) / 2)
    assert of("mi_dare_minus_twin_concatenation") == pytest.approx(0.1)
    assert R1["mi_dare_minus_twin"][1] is at_every and R1["mi_twin_minus_din"][1] is mean
    claims = load_claims()
    asked = [q for c in ("R1", "R2") for q in claims[c].quantities]
    assert {q.quantity for q in asked} == {name + suffix for name in (*R1, *R2) for suffix in SUFFIXES.values()}
    assert all(q.quantity.endswith("_whole_input") for q in asked if q.primary) and set(SUFFIXES) == set(KINDS)


def test_a_comparison_finds_the_better_model_and_not_the_equal_one() -> None:
    """Clusters made by hand for DARE (clicked candidates apart), TWIN and DIN (nothing), 3 seeds."""
    rng = np.random.default_rng(3)
    groups = np.arange(120) % 40

    def made(shift: int) -> ModelClusterings:
        found = []
        for _ in range(3):
            clusters = rng.integers(10, size=(120, 3))
            clusters[:, 0] = rng.integers(shift, 10, size=120)
            found.append([[discriminability(clusters, 10, groups), discriminability(clusters // 2, 5, groups)]])
        return ModelClusterings(found)

    models = {"DARE": made(7), "TWIN": made(0), "DIN": made(0)}
    names = ("mi_dare_minus_twin", "mi_twin_minus_din")
    better, equal = (compare(models, *R1[name])[0] for name in names)
    assert better.low > 0 and equal.low < 0 < equal.high
    less = (models["DARE"].above_chance - models["TWIN"].above_chance)[:, 0].mean(0)
    assert better.estimate == pytest.approx(less.min()) and better.seeds == 3


def test_the_chapter_writes_its_record(own_store: Path) -> None:
    settings = {**QUICK, "world_users": 30, "history": 20, "clusters": "2,10,40"}
    settings["models"] = "DARE,TWIN,TWIN (w/o TR),DARE (w/o TR)"
    chapter = run_chapter("discriminability", **settings)
    record = chapter["record"]
    rows = {r.quantity: r for r in record.rows}
    asked = {name + suffix for name in (*R1, *R2) for suffix in SUFFIXES.values()}
    assert set(rows) == asked and {r.log for r in rows.values()} == {"generated"}
    assert {name for name, r in rows.items() if r.ours is None} == {n for n in asked if "4e" in n or "din" in n}
    assert "plain" in rows["mi_dare_minus_twin"].note and "not computed" in rows["mi_twin_minus_din"].note
    values = pl.read_csv(record.config.results_path / "discriminability_values.csv")
    assert set(values["clusters"]) == {2, 10}  # 40 clusters of 90 samples are left out
    assert set(values["log"]) == {"generated", "independent"}
    assert np.allclose(values["MI"] - values["chance"], values["less chance"])
    summary = pl.read_csv(record.config.results_path / "discriminability_summary.csv")
    shares = dict(summary.filter(log="generated").select("model or rule", "pooled share of variance").iter_rows())
    assert 0 < shares["DARE"] < 1 and shares["DARE (w/o TR)"] == 1 and shares[RULE] is None
    again = run_chapter("discriminability", **settings)["record"]
    assert again.rows == record.rows and again.store.computed == 0
    figures = [shown for shown in chapter["shown"] if shown and "alt=" in shown.html]
    assert len(figures) == 4 and "DARE, concatenation" in figures[2].text
    assert "Grey" in figures[3].text  # the control


def test_bad_numbers_of_clusters_are_refused() -> None:
    for bad in ("1,5", "2,,5", "many"):
        with pytest.raises(InputError, match="clusters"):
            DiscriminabilityConfig.checked({"clusters": bad})
    assert DiscriminabilityConfig.checked({"clusters": "all"}).numbers[-1] == 1_000
