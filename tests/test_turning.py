"""Where the verdicts turn: the protocol, what a point holds, and rules of decision on cases whose truth is known."""

from collections import Counter
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from dare_core.errors import InputError
from dare_core.studies.settings import StudyConfig
from dare_core.training.runs import RunStore
from dare_core.turning.effects import (
    cell_rows,
    competence,
    contrasts,
    lead_outcome,
    lead_rule,
    mean_by,
    outcome,
    predicted,
    prediction_rows,
)
from dare_core.turning.lead_rule import fit
from dare_core.turning.points import CellConfig, computed, experiment_of, joined_points, measure, places, runs_of
from dare_core.turning.properties import properties_of
from dare_core.turning.protocol import OWN, cells, merged, protocol

Effect = Any
WORLDS = 4


def points_of_a(effect: Effect, seed: int = 0, noise: float = 0.01) -> list[dict[str, Any]]:
    """Points of block A with an effect of A2 that is a function of the levels (0 or 1) of the four factors."""
    rng, found = np.random.default_rng(seed), []
    factors = protocol().blocks["A"].factors
    for cell in cells("A"):
        levels = [list(factors[name]).index(level) for name, level in cell.levels.items()]
        for world in range(1, WORLDS + 1):
            value = effect(*levels) + noise * rng.normal()
            found.append({"block": "A", "cell": cell.name, "seed": world, "seeds": 1, "A2": value, "steps": 950})
    return found


def decisions(effect: Effect, **options: Any) -> dict[str, str]:
    return {of.factor: of.decision for of in contrasts(points_of_a(effect, **options), "A", "A2")}


def test_levels_that_no_cell_has_are_refused() -> None:
    with pytest.raises(InputError, match="levels: no cell of T has 40k"):
        computed(["T"], 1, ["40k"])


def test_every_cell_is_a_study() -> None:
    for name, block in protocol().blocks.items():
        of = cells(name)
        assert len({cell.name for cell in of}) == len(of) == len(block.combinations)
        for cell in of:
            settings = {key: value for key, value in cell.settings.items() if key not in (*OWN, "world")}
            CellConfig.checked({"logs": cell.log, **settings})
    assert len(cells("A")) == 16 and len(cells("W")) == 18


def test_in_the_array_every_two_levels_meet_equally_often() -> None:
    rows = protocol().blocks["W"].array
    for first, second in combinations(range(6), 2):
        met = Counter((row[first], row[second]) for row in rows)
        assert len(met) == 9 and set(met.values()) == {2}


def test_settings_are_merged_key_by_key() -> None:
    cell = next(cell for cell in cells("W") if cell.levels["decay"] == "fast")
    assert (
        cell.settings["world"]["item_exponent"] == 0.85 and cell.settings["world"]["style_kernel"]["exponent"] == 2.57
    )
    assert merged({"train": {"a": 1}}, {"train": {"b": 2}}) == {"train": {"a": 1, "b": 2}}


def test_an_unknown_block_is_refused() -> None:
    with pytest.raises(InputError, match="there is no block 'Z': choose from F, W"):
        cells("Z")


def test_a_factor_that_turns_is_told_from_one_that_moves() -> None:
    found = decisions(lambda samples, steps, categories, items: 0.2 * steps - 0.1 + 0.05 * samples, seed=3)
    assert found == {"samples": "moves", "steps": "turns", "categories": "neither", "items": "neither"}
    # the same change, but no sign is changed by it
    assert decisions(lambda samples, steps, categories, items: 0.2 * steps + 0.1)["steps"] == "moves"


def test_means_are_over_the_worlds_that_all_cells_have() -> None:
    points = points_of_a(lambda samples, steps, categories, items: samples + 10 * steps + 100 * items, noise=0.0)
    found = {(row["samples"], row["steps"]): row["mean"] for row in mean_by(points, "A", "A2", ("samples", "steps"))}
    assert found == {("40k", "75"): 50, ("40k", "950"): 60, ("485k", "75"): 51, ("485k", "950"): 61}
    first = cells("A")[0].name
    fewer = [point for point in points if point["cell"] != first or point["seed"] == 2]
    assert [row["worlds"] for row in mean_by(fewer, "A", "A2", ("samples",))] == [1, WORLDS]
    without = [point for point in points if point["cell"] != first]
    assert [row["samples"] for row in mean_by(without, "A", "A2", ("samples",))] == ["485k"]


def test_few_false_alarms_where_there_is_nothing() -> None:
    found = [decisions(lambda *levels: 0.0, seed=seed).values() for seed in range(200)]
    alarms = [any(decision != "neither" for decision in of) for of in found]
    assert np.mean(alarms) < 0.08  # four factors by Holm: 5 of 100
    assert np.mean(["turns" in of for of in found]) < 0.05


def test_predictions_can_fail_and_can_be_open() -> None:
    by_id = {prediction.id: prediction for prediction in protocol().predictions}
    turns = points_of_a(lambda samples, steps, *_: 0.2 * steps - 0.1)
    assert outcome(by_id[1], turns)[0] == "held" and outcome(by_id[2], turns)[0] == "held"
    other = points_of_a(lambda samples, steps, *_: 0.2 * samples - 0.1)
    assert outcome(by_id[1], other)[0] == "failed" and outcome(by_id[2], other)[0] == "failed"
    assert outcome(by_id[3], turns)[0] == "open"  # A4 was not measured
    for value, word in ((np.log(4), "held"), (np.log(20), "failed")):
        gradients = [
            {"block": "F", "cell": "published, 2,048", "seed": seed, "seeds": 1, "G1": value + 0.1 * (seed - 2)}
            for seed in (1, 2, 3)
        ]
        assert outcome(by_id[8], gradients)[0] == word
    assert [row["outcome"] for row in prediction_rows([])] == ["open"] * len(by_id)


def worlds_and_logs(lead: Effect, seed: int = 0) -> list[dict[str, Any]]:
    """Points of blocks W and R whose lead is a function of their properties."""
    rng, found = np.random.default_rng(seed), []
    for block in ("W", "R"):
        for cell in cells(block):
            properties = {name: float(rng.normal()) for name in protocol().properties}
            for world in range(1, 4) if block == "W" else (1,):
                value = lead(properties) + 0.002 * rng.normal()
                point = {"block": block, "cell": cell.name, "seed": world, "seeds": 1, "O1": value, **properties}
                if block == "R":
                    point |= {"O1, low": value - 0.004, "O1, high": value + 0.004, "seeds": 3}
                found.append(point)
    return found


def test_a_rule_of_the_lead_is_found_and_predicts() -> None:
    points = worlds_and_logs(lambda p: 0.02 + 0.01 * p["repeats"] - 0.008 * p["related"])
    rule = lead_rule(points)
    assert rule is not None and rule.found and {"repeats", "related"} <= set(rule.names) and len(rule.names) <= 3
    assert lead_outcome(points)[0] == "held" and len(predicted(points)) == 6
    beyond = dict.fromkeys(protocol().properties, 9.0)
    assert set(rule.outside(beyond)) == set(rule.names)


def test_a_rule_that_does_not_carry_over_fails() -> None:
    points = worlds_and_logs(lambda p: 0.02 + 0.01 * p["repeats"])
    for point in points:
        if point["block"] == "R":
            point["O1"] = -0.02
    assert lead_outcome(points)[0] == "failed"


def test_hardly_any_rule_is_found_in_noise() -> None:
    rng, found = np.random.default_rng(1), []
    for _ in range(60):
        worlds = [dict(zip("abcdefgh", map(float, row), strict=True)) for row in rng.normal(size=(18, 8))]
        found.append(fit(worlds, 0.01 * rng.normal(size=18)).found)
    assert np.mean(found) < 0.2  # 9 of 100 in 400 tries


def test_predictions_of_leads_lie_in_their_intervals() -> None:
    rng, inside = np.random.default_rng(2), []
    for _ in range(60):
        rows = rng.normal(size=(19, 8))
        leads = 0.02 * rows[:, 0] + 0.01 * rng.normal(size=19)
        worlds = [dict(zip("abcdefgh", map(float, row), strict=True)) for row in rows]
        guess = fit(worlds[:18], leads[:18]).predict(worlds[18])
        inside.append(guess.low <= leads[18] <= guess.high)
    assert np.mean(inside) > 0.8  # choosing properties costs some of the 95 %


SMALL = {"world_users": 40, "world_items": 2000, "world_categories": 60, "world": {"groups": 5}}


def test_a_point_is_measured() -> None:
    place = places(cells("T"), 1)[1]  # 120 steps per epoch, 60 users
    point = measure(place)
    assert (point["block"], point["seed"], point["steps"]) == ("T", 1, 123)
    assert {"O1", "A2", "A3", "A4", "C1"} <= set(point) and "P1" not in point
    assert point["O1"] == pytest.approx(point["AUC, DARE"] - point["AUC, TWIN"])
    assert point["AUC of the oracle"] > 0.6
    rows = cell_rows("T", [point])
    assert rows[0]["not judged"] == "123 steps per epoch" and rows[0]["O1 is"] == ""
    assert 0 < competence([point]) < 1


def test_a_part_of_the_users_and_a_number_of_steps() -> None:
    store = RunStore(progress=False, threads=1)
    place = places(cells("T"), 1)[1]
    whole = experiment_of(place, store)
    cell = place.cell.__class__(**{**vars(place.cell), "settings": {**place.cell.settings, "part": 0.5}})
    half = experiment_of(place.__class__(cell, 1, 1), store)
    assert half.training_samples == pytest.approx(whole.training_samples / 2, rel=0.05)
    assert abs(half.steps - 120) <= 3 and abs(whole.steps - 120) <= 3


def test_models_of_a_place_share_seed_and_samples() -> None:
    cell = cells("T")[0]
    wide = cell.__class__(**{**vars(cell), "models": ("TWIN", "TWIN twice as wide")})
    place = places([wide], 1)[0]
    runs = runs_of(place, experiment_of(place, RunStore(progress=False, threads=1)))
    assert [run.config.model.size for (run,) in runs.values()] == [16, 32]
    assert len({run.config.seed for (run,) in runs.values()}) == 1


def test_properties_follow_the_world() -> None:
    def of(**settings: Any) -> dict[str, float]:
        cell = cells("T")[0]
        other = cell.__class__(**{**vars(cell), "settings": merged(SMALL, settings)})
        return properties_of(experiment_of(places([other], 1)[0], RunStore(progress=False, threads=1)))

    usual = of()
    assert set(usual) == set(protocol().properties)
    assert of(world={"repeat_share": 0.0})["repeats"] < usual["repeats"] - 0.1
    assert of(world_categories=20)["items per category"] > usual["items per category"] + 0.5
    slow = {"exponent": 0.3, "shift": 0.2}
    assert of(world={"style_kernel": slow, "category_kernel": slow})["recent"] < usual["recent"] - 0.05


def test_own_points_replace_stored_ones_of_no_more_seeds() -> None:
    stored = [{"block": "A", "cell": "x", "seed": seed, "seeds": 1, "O1": float(seed)} for seed in (1, 2)]
    assert [point["O1"] for point in joined_points(stored, [stored[1] | {"O1": 3.0}])] == [1.0, 3.0]
    real = [{"block": "R", "cell": "x", "seed": 1, "seeds": 3, "O1": 1.0}]
    assert joined_points(real, [real[0] | {"seeds": 1, "O1": 2.0}]) == real
    assert issubclass(CellConfig, StudyConfig)
