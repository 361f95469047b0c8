"""Projections: statistics of maps by hand, a listener that changes nothing, the search's rule, the two claims."""

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, random_batch, run_chapter

from dare_core.book import notebook_of
from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.data.samples import make_samples
from dare_core.errors import InputError
from dare_core.models.embeddings import Counts
from dare_core.models.zoo import build_model
from dare_core.studies import projections
from dare_core.studies.experiment import Experiment, Record
from dare_core.studies.projections import (
    BEST,
    DARE,
    LEARNING_RATES,
    PROJECTION,
    SHARED,
    TWIN,
    VARIANTS,
    Setting,
    choices,
    cosine,
    edge_chosen,
    effective_rank,
    grid,
    map_rows,
    pass_seconds,
    search_settings,
)
from dare_core.studies.scores import made_with
from dare_core.studies.settings import ProjectionsConfig
from dare_core.training.loop import Trained, train
from dare_core.training.runs import RunStore

QUICK = {"world_users": 40, "seeds": 2, "epochs": 1, "targets": 5}
COUNTS = Counts(40, 6, 12)


def test_effective_rank_by_hand() -> None:
    assert effective_rank(torch.eye(5)) == pytest.approx(5)
    assert effective_rank(torch.outer(torch.arange(1.0, 5), torch.ones(3))) == pytest.approx(1)
    assert effective_rank(torch.diag(torch.tensor([2.0, 2.0, 0.0]))) == pytest.approx(2)
    by_hand = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(by_hand)
    assert effective_rank(torch.zeros(3, 3)) == 0
    weight = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    assert effective_rank(weight) == pytest.approx(effective_rank(-7 * weight.T))


def test_cosine_by_hand() -> None:
    weight = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    assert cosine(weight, 3 * weight) == pytest.approx(1) and cosine(weight, -weight) == pytest.approx(-1)
    assert cosine(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, 1.0]])) == pytest.approx(0.5**0.5)
    assert cosine(weight, torch.zeros(4, 4)) == 0


def test_map_rows_tell_attention_from_representation() -> None:
    model = build_model(ModelConfig(name=PROJECTION, size=4), COUNTS, TrainingConfig(map_initial="identity"))
    maps: Any = model.embeddings.maps
    with torch.no_grad():
        maps.layers["attention_behaviour_category"].weight.mul_(-3)
        maps.layers["representation_target_item"].weight[1:] = 0
    lines = {(line["field"], line["side"]): line for line in map_rows(7, model)}
    assert len(lines) == 6 and all(line["step"] == 7 for line in lines.values())
    turned, flat = lines["category", "behaviour"], lines["item", "target"]
    assert turned["attention norm"] == pytest.approx(6) and turned["representation norm"] == pytest.approx(2)
    assert turned["cosine"] == pytest.approx(-1)
    assert flat["representation effective rank"] == pytest.approx(1)
    assert flat["attention effective rank"] == pytest.approx(4) and flat["cosine"] == pytest.approx(0.5)
    untouched = lines["position", "target"]
    assert untouched["cosine"] == pytest.approx(1) and untouched["attention norm"] == pytest.approx(2)
    with pytest.raises(InputError, match="linear map"):
        map_rows(0, build_model(ModelConfig(name=TWIN, size=4), COUNTS))


def trained(log: Any, observe: Any = None) -> Trained:
    config = RunConfig(
        log="by_hand",
        samples=SMALL_SAMPLES,
        model=ModelConfig(name=PROJECTION, size=4, top_k=5),
        training=TrainingConfig(epochs=1, batch_size=96, validations_per_epoch=2),
    )
    splits = make_samples(log, SMALL_SAMPLES, 1)
    counts = Counts(log.card.items, log.card.categories, SMALL_SAMPLES.history)
    return train(config, splits, lambda: build_model(config.model, counts, config.training, 1), False, observe=observe)


def test_a_listener_changes_nothing(log: Any) -> None:
    steps: list[int] = []
    plain = trained(log)
    heard = trained(log, lambda step, model: (steps.append(step), map_rows(step, model)))
    assert np.array_equal(plain.test_probability, heard.test_probability)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, heard.model.state_dict()[name]), name
    assert steps == list(range(plain.history[-1].step + 1)) and len(steps) > 3

    def meddle(step: int, model: Any) -> None:
        for layer in model.embeddings.maps.layers.values():
            layer.weight.data.mul_(2)

    assert not np.array_equal(plain.test_probability, trained(log, meddle).test_probability)


def experiment(**changes: Any) -> Experiment:
    config = ProjectionsConfig.checked({**QUICK, **changes})
    return Experiment(config, "generated", RunStore(progress=False))


def test_motion_is_that_of_the_run_and_is_stored(monkeypatch: pytest.MonkeyPatch, own_store: Path) -> None:
    world = experiment(targets=19, size=4, epochs=2)
    config = world.run_config(PROJECTION, 1, map_initial="identity", validations_per_epoch=1)
    lines = projections.map_motion(world.store, config)
    steps = world.store.get(config).history[-1].step
    assert {line["step"] for line in lines} == set(range(0, steps + 1, projections.EVERY)) and steps > projections.EVERY
    assert all(line["cosine"] == pytest.approx(1) for line in lines if line["step"] == 0)
    assert any(line["cosine"] < 0.9999 for line in lines if line["step"] > 0)
    with monkeypatch.context() as patched:
        patched.setattr(projections, "train", lambda *arguments: pytest.fail("trained again"))
        assert projections.map_motion(world.store, config) == lines
    (path,) = (own_store / "map_motion").iterdir()
    path.write_text("[{")
    assert projections.map_motion(world.store, config) == lines


def test_variants_are_the_eleven_of_the_published_code() -> None:
    assert len(VARIANTS) == 11 and PROJECTION in VARIANTS and not {TWIN, DARE, "TWIN-4E"} & set(VARIANTS)
    assert len(grid(PROJECTION)) == 12 and grid(PROJECTION)[0] == Setting(0.03, "published")
    for model in (TWIN, DARE, "equalised gradients"):
        assert grid(model) == [Setting(0.03), Setting(0.01), Setting(0.003), Setting(0.001)]
    everything = ProjectionsConfig.checked({"models": "all"}).model_names
    assert len(everything) == 13 == len(set(everything))


class FakeStore(RunStore):
    """Gives runs that have a validation AUC and nothing else: a search that reads a test score fails."""

    def __init__(self, aucs: dict[Any, float]) -> None:
        super().__init__(progress=False)
        self.aucs = aucs
        self.worlds: set[tuple[int, str]] = set()

    def get_many(self, configs: Sequence[RunConfig]) -> list[Any]:
        self.worlds |= {(config.seed, config.log) for config in configs}
        keys = [(config.training.learning_rate, config.training.map_initial, config.seed) for config in configs]
        return [SimpleNamespace(best=SimpleNamespace(auc=self.aucs[key])) for key in keys]


def test_search_takes_the_best_mean_validation_and_the_first_of_equals() -> None:
    world = experiment()
    aucs: dict[Any, float] = {
        (s.learning_rate, s.map_initial, seed): 0.6 for s in grid(PROJECTION) for seed in (1, 2, 3)
    }
    for winner in ((0.03, "published"), (0.003, "xavier")):
        if winner != (0.03, "published"):  # all equal at first
            aucs |= {(*winner, seed): 0.7 for seed in (2, 3)} | {(0.001, "identity", 1): 0.75}  # best of one seed
        world.store = fake = FakeStore(aucs)
        lines = search_settings(world, PROJECTION)
        assert {seed for seed, _ in fake.worlds} == {1, 2, 3} and len(fake.worlds) == 3
        assert len({log for _, log in fake.worlds}) == 3  # a world per seed, three though the study has two
        assert sum(line["chosen"] for line in lines) == 1
        assert choices(lines, world) == {PROJECTION: Setting(*winner)}  # type: ignore[arg-type]


def test_a_search_counts_for_its_log_size_and_epochs() -> None:
    """Review B3: a search on another log of the same name, or at another size, chooses nothing."""
    world = experiment()
    lines = searched_lines(world, Setting(0.003))
    assert choices(lines, world) == dict.fromkeys(world.config.model_names, Setting(0.003))
    assert choices(lines, experiment(world_seed=9, seeds=3)) != {}  # the seed alone makes no other kind of world
    for changes in ({"world_users": 41}, {"size": 4}, {"epochs": 2}):
        assert choices(lines, experiment(**changes)) == {}
    first_edition = [{key: line[key] for key in line if key not in ("fingerprint", "size", "epochs")} for line in lines]
    assert choices(first_edition, world) == {}


def test_an_edge_is_chosen_where_most_models_choose_it() -> None:
    high, low, inner = Setting(LEARNING_RATES[0]), Setting(LEARNING_RATES[-1], "xavier"), Setting(0.01)
    assert edge_chosen({"a": high, "b": low, "c": inner}) and not edge_chosen({"a": high, "b": inner})
    assert not edge_chosen({})


def searched_lines(world: Experiment, setting: Setting, models: list[str] | None = None) -> list[dict[str, Any]]:
    """Lines of a search on a world that chose the same setting for every model."""
    return [
        {
            "log": world.name,
            **made_with(world),
            "model": model,
            "learning rate": setting.learning_rate,
            "initial values of maps": setting.map_initial,
            "validation AUC": 0.8,
            "chosen": True,
        }
        for model in models or world.config.model_names
    ]


def judge(record: Record, world: Experiment, auc: dict[tuple[str, str], Any], searched: list[dict[str, Any]]) -> None:
    """Run the notebook's cell that judges, on AUCs (seeds, 1) by setting and model and on the rows of a search."""
    cells = nbformat.read(notebook_of("projections"), as_version=4).cells
    imports, judging = (next(c.source for c in cells if text in c.source) for text in ("import numpy", "record.judge("))
    variables: dict[str, Any] = {}
    exec(imports, variables)
    variables |= {
        "record": record,
        "experiments": [world],
        "model_names": world.config.model_names,
        "auc": {world.name: auc},
        "best_known": {world.name: choices(searched, world)},
        "settings": {world.name: dict.fromkeys(auc, Setting(0.01))},
    }
    exec(judging, variables)


def judged(
    monkeypatch: pytest.MonkeyPatch,
    best_variant: float,
    projection: float = 0.70,
    models: str = "all",
    best_rate: float | None = 0.01,
) -> dict[str, Any]:
    """The rows of known AUCs, with a little noise that all models share."""
    world = experiment(models=models, seeds=3)
    monkeypatch.setattr(Experiment, "competence", SimpleNamespace(value=1.0, not_learned="", rule="popularity"))
    record = Record("projections", world.config, world.store)
    aucs: dict[tuple[str, str], float] = {}
    for at in (SHARED, BEST):
        aucs |= {(at, model): 0.75 for model in VARIANTS}
        aucs |= {(at, TWIN): 0.80, (at, DARE): 0.9, (at, PROJECTION): projection}
    aucs[BEST, "equalised gradients"] = best_variant
    noise = np.random.default_rng(0).normal(0, 0.001, (3, 1))
    lines = searched_lines(world, Setting(best_rate)) if best_rate else []
    judge(record, world, {key: value + noise for key, value in aucs.items()}, lines)
    return {row.quantity: row for row in record.rows}


def test_claims_are_judged_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = judged(monkeypatch, best_variant=0.82)
    assert rows["twin_minus_projection"].ours == pytest.approx(0.10)
    assert rows["twin_minus_projection"].verdict == "holds" and rows["twin_minus_projection"].primary
    assert rows["best_variant_minus_twin"].ours == pytest.approx(-0.05)
    assert rows["best_variant_minus_twin"].verdict == "holds"
    assert rows["best_variant_minus_twin_best"].ours == pytest.approx(0.02)
    assert rows["best_variant_minus_twin_best"].verdict == "contradicted"
    assert rows["best_variant_minus_twin_best"].note == "best of 11: equalised gradients"
    assert judged(monkeypatch, 0.79)["best_variant_minus_twin_best"].verdict == "holds"
    worse = judged(monkeypatch, 0.79, projection=0.81)  # a map that helps
    assert worse["twin_minus_projection"].ours == pytest.approx(-0.01)
    assert worse["twin_minus_projection"].verdict == "contradicted"
    assert worse["best_variant_minus_twin"].verdict == "contradicted"


def test_best_settings_are_judged_only_where_they_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    judgeable = judged(monkeypatch, 0.82)
    unsearched = judged(monkeypatch, 0.82, best_rate=None)
    at_edge = judged(monkeypatch, 0.82, best_rate=0.03)
    for quantity in ("twin_minus_projection", "best_variant_minus_twin"):
        assert unsearched[quantity] == judgeable[quantity] == at_edge[quantity]
        row = unsearched[f"{quantity}_best"]
        assert row.verdict == "cannot be tested here" and row.ours is None
        assert row.note == "no search of this log at this size"
        row = at_edge[f"{quantity}_best"]
        assert row.verdict == "cannot be tested here" and row.ours is not None
        assert row.note.startswith("the grid's edge is chosen")
    some = judged(monkeypatch, 0.82, models=f"{DARE},{TWIN},{PROJECTION}")
    assert some["twin_minus_projection_best"].verdict == "holds"
    for quantity in ("best_variant_minus_twin", "best_variant_minus_twin_best"):
        assert some[quantity].verdict == "not studied yet" and some[quantity].note == "not computed here: every variant"


def test_p2_is_contradicted_only_beyond_the_correction_for_all_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of eleven that differ in nothing is easily above by its own interval (review B1)."""
    world = experiment(models="all", seeds=3)
    monkeypatch.setattr(Experiment, "competence", SimpleNamespace(value=1.0, not_learned="", rule="popularity"))
    alarms = 0
    for draw in range(60):
        rng = np.random.default_rng(draw)
        auc = {(SHARED, model): 0.8 + rng.normal(0, 0.01, (3, 1)) for model in (TWIN, DARE, *VARIANTS)}
        record = Record("projections", world.config, world.store)
        judge(record, world, auc, [])
        alarms += any(row.verdict == "contradicted" for row in record.rows if row.claim == "P2")
    assert alarms <= 6  # at most about 5 % are expected


def test_the_chapter_takes_the_stored_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    found = searched_lines(experiment(), Setting(0.003, "identity"), [PROJECTION])
    found += [line | {"learning rate": 0.01, "chosen": False} for line in found]
    monkeypatch.setattr("dare_core.report.stored.stored_rows", lambda chapter, name: found if name == "search" else [])
    record = run_chapter("projections", **QUICK)["record"]
    rows = {(row["setting"], row["model"]): row for row in record.tables["variants"]}
    best, shared = rows[BEST, PROJECTION], rows[SHARED, PROJECTION]
    assert (best["learning rate"], best["initial values of maps"]) == (0.003, "identity")
    assert (shared["learning rate"], shared["initial values of maps"]) == (0.01, "published")
    assert rows[BEST, TWIN]["AUC"] == rows[SHARED, TWIN]["AUC"]
    assert best["AUC"] != shared["AUC"]
    for at in (SHARED, BEST):
        row = rows[at, PROJECTION]
        assert row["minus TWIN"] == pytest.approx(row["AUC"] - rows[at, TWIN]["AUC"])
    assert record.rows[0].ours == pytest.approx(-shared["minus TWIN"])
    assert record.rows[1].note == "no search of this log at this size"  # TWIN's own best setting is not known
    budget = {row["model"]: row for row in record.tables["budget"]}
    wide = budget["TWIN, twice as wide"]
    assert wide["parameters in tables"] == budget[DARE]["parameters in tables"]
    assert wide["parameters in tables"] == 2 * budget[TWIN]["parameters in tables"]
    cost = {row["model"]: row for row in record.tables["cost"]}
    assert cost[PROJECTION]["more than TWIN"] == cost[PROJECTION]["of them in maps"] == 12 * 16**2
    assert cost[PROJECTION]["multiplications per behaviour"] == 3 * 16 + 3 * 16**2
    assert "search" not in record.tables


def test_models_that_are_compared_with_must_be_there() -> None:
    with pytest.raises(InputError, match=r"TWIN \(w/ proj.\)"):
        ProjectionsConfig.checked({**QUICK, "models": f"{DARE},{TWIN}"})


def test_a_forward_pass_is_timed_in_evaluation_mode() -> None:
    models = {name: build_model(ModelConfig(name=name, size=4, top_k=5), COUNTS) for name in (TWIN, PROJECTION)}
    before = {name: {k: v.clone() for k, v in model.state_dict().items()} for name, model in models.items()}
    found = pass_seconds(models, random_batch(), rounds=3)
    assert all(len(found[name]) == 3 and (found[name] > 0).all() for name in models)
    for name, model in models.items():  # in training mode BatchNorm would have moved
        assert all(torch.equal(v, before[name][k]) for k, v in model.state_dict().items())
