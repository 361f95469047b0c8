"""Projections: statistics of maps by hand, a listener that changes nothing, the search's rule, the two claims."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import SMALL_SAMPLES, random_batch

from dare_core import map_motion
from dare_core.config import ModelConfig, RunConfig, TrainingConfig
from dare_core.embeddings import Counts
from dare_core.errors import InputError
from dare_core.intervals import Draws
from dare_core.map_motion import cosine, effective_rank, map_lines
from dare_core.models import build_model
from dare_core.runs import RunStore
from dare_core.samples import make_samples
from dare_core.studies import projections
from dare_core.studies.common import Experiment, Record, resolve_log
from dare_core.studies.projection_cost import pass_seconds
from dare_core.studies.projection_settings import Setting, chosen, grid, search
from dare_core.studies.projections import BEST, DARE, PROJECTION, SHARED, TWIN, VARIANTS
from dare_core.training import Trained, train

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


def test_map_lines_tell_attention_from_representation() -> None:
    model = build_model(ModelConfig(name=PROJECTION, size=4), COUNTS, TrainingConfig(map_initial="identity"))
    maps: Any = model.embeddings.maps
    with torch.no_grad():
        maps.layers["attention_behaviour_category"].weight.mul_(-3)
        maps.layers["representation_target_item"].weight[1:] = 0
    lines = {(line["field"], line["side"]): line for line in map_lines(7, model)}
    assert len(lines) == 6 and all(line["step"] == 7 for line in lines.values())
    turned, flat = lines["category", "behaviour"], lines["item", "target"]
    assert turned["attention norm"] == pytest.approx(6) and turned["representation norm"] == pytest.approx(2)
    assert turned["cosine"] == pytest.approx(-1)
    assert flat["representation effective rank"] == pytest.approx(1)
    assert flat["attention effective rank"] == pytest.approx(4) and flat["cosine"] == pytest.approx(0.5)
    untouched = lines["position", "target"]
    assert untouched["cosine"] == pytest.approx(1) and untouched["attention norm"] == pytest.approx(2)
    with pytest.raises(InputError, match="linear map"):
        map_lines(0, build_model(ModelConfig(name=TWIN, size=4), COUNTS))


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
    heard = trained(log, lambda step, model: (steps.append(step), map_lines(step, model)))
    assert np.array_equal(plain.test_probability, heard.test_probability)
    for name, weight in plain.model.state_dict().items():
        assert torch.equal(weight, heard.model.state_dict()[name]), name
    assert steps == list(range(plain.history[-1].step + 1)) and len(steps) > 3

    def meddle(step: int, model: Any) -> None:
        for layer in model.embeddings.maps.layers.values():
            layer.weight.data.mul_(2)

    assert not np.array_equal(plain.test_probability, trained(log, meddle).test_probability)


def experiment(**changes: Any) -> Experiment:
    config = projections.Config.checked({**QUICK, **changes})
    store = RunStore(progress=False)
    return Experiment(config, "generated", resolve_log(config, "generated", store), store)


def test_motion_is_that_of_the_run_and_is_stored(monkeypatch: pytest.MonkeyPatch, own_store: Path) -> None:
    world = experiment(targets=19, size=4, epochs=2)
    config = world.run_config(PROJECTION, 1, map_initial="identity", validations_per_epoch=1)
    lines = map_motion.map_motion(world.store, config)
    steps = world.store.get(config).history[-1].step
    assert {line["step"] for line in lines} == set(range(0, steps + 1, map_motion.EVERY)) and steps > map_motion.EVERY
    assert all(line["cosine"] == pytest.approx(1) for line in lines if line["step"] == 0)
    assert any(line["cosine"] < 0.9999 for line in lines if line["step"] > 0)
    with monkeypatch.context() as patched:
        patched.setattr(map_motion, "train", lambda *arguments: pytest.fail("trained again"))
        assert map_motion.map_motion(world.store, config) == lines
    (path,) = (own_store / "map_motion").iterdir()
    path.write_text("[{")
    assert map_motion.map_motion(world.store, config) == lines


def test_variants_are_the_eleven_of_the_published_code() -> None:
    assert len(VARIANTS) == 11 and PROJECTION in VARIANTS and not {TWIN, DARE, "TWIN-4E"} & set(VARIANTS)
    assert len(grid(PROJECTION)) == 9 and grid(PROJECTION)[0] == Setting(0.01, "published")
    for model in (TWIN, DARE, "equalised gradients"):
        assert grid(model) == [Setting(0.01), Setting(0.003), Setting(0.001)]
    everything = projections.Config.checked({"models": "all"}).model_names
    assert len(everything) == 13 == len(set(everything))


class FakeStore:
    """Gives runs that have a validation AUC and nothing else: a search that reads a test score fails."""

    def __init__(self, aucs: dict[tuple[float, str], float]) -> None:
        self.aucs = aucs
        self.seeds: set[int] = set()

    def get(self, config: RunConfig) -> Any:
        self.seeds.add(config.seed)
        value = self.aucs[config.training.learning_rate, config.training.map_initial]
        return SimpleNamespace(best=SimpleNamespace(auc=value))


def test_search_takes_the_best_validation_and_the_first_of_equals() -> None:
    world = experiment()
    aucs = {(setting.learning_rate, setting.map_initial): 0.6 for setting in grid(PROJECTION)}
    for winner in ((0.01, "published"), (0.003, "xavier")):
        if winner != (0.01, "published"):  # all equal at first
            aucs[winner] = 0.7
        fake: Any = FakeStore(aucs)
        world.store = fake
        lines = search(world, PROJECTION)
        assert fake.seeds == {1} and sum(line["chosen"] for line in lines) == 1
        assert chosen(lines, "generated", PROJECTION) == Setting(*winner)  # type: ignore[arg-type]
        assert chosen(lines, "complete_journey", PROJECTION) is None and chosen(lines, "generated", TWIN) is None


def resampled(aucs: dict[str, float], seeds: int = 3, resamples: int = 200) -> tuple[dict[str, Any], Draws]:
    """Resamples of models whose AUC is known, with a little noise that all share."""
    noise = np.random.default_rng(0).normal(0, 0.001, (seeds, resamples))
    made = {name: (np.full(seeds, value), value + noise) for name, value in aucs.items()}
    return made, Draws.make(20, seeds, resamples)


def judged(best_variant: float, projection: float = 0.70, models: str = "all", searched: bool = True) -> dict[str, Any]:
    world = experiment(models=models)
    record = Record("projections", world.config, world.store)
    aucs = {}
    for at in (SHARED, BEST):
        aucs |= {f"{at} {model}": 0.75 for model in VARIANTS}
        aucs |= {f"{at} {TWIN}": 0.80, f"{at} {DARE}": 0.9, f"{at} {PROJECTION}": projection}
    aucs[f"{BEST} equalised gradients"] = best_variant
    settings = {(at, model): Setting(0.01) for at in (SHARED, BEST) for model in world.config.model_names}
    projections.judge(record, world, settings, *resampled(aucs), searched)
    return {row.quantity: row for row in record.rows}


def test_claims_are_judged_by_hand() -> None:
    rows = judged(best_variant=0.82)
    assert rows["twin_minus_projection"].ours == pytest.approx(0.10)
    assert rows["twin_minus_projection"].verdict == "holds"
    assert rows["best_variant_minus_twin"].ours == pytest.approx(-0.05)
    assert rows["best_variant_minus_twin"].verdict == "holds"
    assert rows["best_variant_minus_twin_best"].ours == pytest.approx(0.02)
    assert rows["best_variant_minus_twin_best"].verdict == "does not hold"
    assert "equalised gradients" in rows["best_variant_minus_twin_best"].note
    assert judged(0.79)["best_variant_minus_twin_best"].verdict == "holds"
    worse = judged(0.79, projection=0.81)  # a map that helps
    assert worse["twin_minus_projection"].ours == pytest.approx(-0.01)
    assert worse["twin_minus_projection"].verdict == "does not hold"
    assert worse["best_variant_minus_twin"].verdict == "does not hold"
    unsearched = judged(0.82, searched=False)
    assert unsearched["twin_minus_projection"].verdict == judged(0.82)["twin_minus_projection"].verdict
    for quantity in ("twin_minus_projection_best", "best_variant_minus_twin_best"):
        assert unsearched[quantity].verdict == "cannot be tested here"
    some = judged(0.82, models=f"{DARE},{TWIN},{PROJECTION}")
    assert set(some) == {"twin_minus_projection", "twin_minus_projection_best"}  # P2 is about all variants


def test_the_chapter_takes_the_stored_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    line = {"log": "generated", "model": PROJECTION, "learning rate": 0.003, "initial values of maps": "identity"}
    stored = [line | {"chosen": True}, line | {"learning rate": 0.01, "chosen": False}]
    monkeypatch.setattr(projections, "stored_search", lambda: stored)
    record = projections.run(projections.Config.checked(QUICK)).record
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
    budget = {row["model"]: row for row in record.tables["budget"]}
    wide = budget["TWIN, twice as wide"]
    assert wide["parameters in tables"] == budget[DARE]["parameters in tables"]
    assert wide["parameters in tables"] == 2 * budget[TWIN]["parameters in tables"]
    cost = {row["model"]: row for row in record.tables["cost"]}
    assert cost[PROJECTION]["more than TWIN"] == cost[PROJECTION]["of them in maps"] == 12 * 16**2
    assert cost[PROJECTION]["multiplications a behaviour"] == 3 * 16 + 3 * 16**2
    assert "search" not in record.tables


def test_models_that_are_compared_with_must_be_there() -> None:
    with pytest.raises(InputError, match=r"TWIN \(w/ proj.\)"):
        projections.run(projections.Config.checked({**QUICK, "models": f"{DARE},{TWIN}"}))


def test_a_forward_pass_is_timed_in_evaluation_mode() -> None:
    models = {name: build_model(ModelConfig(name=name, size=4, top_k=5), COUNTS) for name in (TWIN, PROJECTION)}
    before = {name: {k: v.clone() for k, v in model.state_dict().items()} for name, model in models.items()}
    found = pass_seconds(models, random_batch(), rounds=3)
    assert all(len(found[name]) == 3 and (found[name] > 0).all() for name in models)
    for name, model in models.items():  # in training mode BatchNorm would have moved
        assert all(torch.equal(v, before[name][k]) for k, v in model.state_dict().items())
