"""Points: what is measured in a cell of the protocol, on one generated world or on all seeds of another log."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from dare_core.data.worlds import WORLDS
from dare_core.errors import InputError
from dare_core.evaluation.intervals import Replicates, interval
from dare_core.evaluation.relevance import GainRule, information_gains
from dare_core.evaluation.retrieval import candidate_ndcg, left_out_share, retrieve, same_category_counts
from dare_core.files import canonical_json, short_hash, store_root, write_json
from dare_core.schedule import in_processes, side_by_side
from dare_core.studies.attention import candidate_means
from dare_core.studies.experiment import CLAIMED, ORACLE, REFERENCE, Experiment
from dare_core.studies.learning import FIRST, TRIVIAL_AUC, iterations, negative_steps
from dare_core.studies.scores import columns
from dare_core.studies.settings import StudyConfig
from dare_core.training.runs import Run, RunStore
from dare_core.turning.properties import properties_of
from dare_core.turning.protocol import OWN, Cell, cells

WIDE, PROJECTION = "TWIN twice as wide", "TWIN (w/ proj.)"
RULE = GainRule(least_samples=200, least_cell=10, most_thin=100_000)
"""Cells that A3 trusts: the study's own thresholds, whatever the size of the log."""
RECENT = 10
MODULES = ("representation", "attention")
SHARE = 0.7
"""Of the best rule's way from 1/2: the level to which C1 counts iterations."""
METHOD = 1
"""Version of what is measured: raise it when the same trainings give other points."""
Runs = Mapping[str, list[Run]]
Point = dict[str, Any]


class CellConfig(StudyConfig):
    """Settings of a cell's trainings, whose seeds are counted from one of their own."""

    first_seed: int = 1
    most_samples: int = 0

    @property
    def seed_numbers(self) -> range:
        """The seeds of the trainings of a model."""
        return range(self.first_seed, self.first_seed + self.seeds)


@dataclass(frozen=True)
class Place:
    """A cell with the seeds of one point: a single one on generated worlds, all of them on another log."""

    cell: Cell
    first_seed: int
    seeds: int

    @property
    def of_worlds(self) -> bool:
        """Whether it is on a generated world."""
        return self.cell.log in WORLDS


def places(of: Iterable[Cell], most: int) -> list[Place]:
    """The points of cells, first seeds first: where the work is interrupted, all cells have as many. `most` seeds per
    cell at most."""
    found = []
    for cell in of:
        seeds = min(cell.seeds, most)
        alone = [Place(cell, seed, 1) for seed in range(1, seeds + 1)]
        found += alone if cell.log in WORLDS else [Place(cell, 1, seeds)]
    return sorted(found, key=lambda place: place.first_seed)


def experiment_of(place: Place, store: RunStore) -> Experiment:
    """The log of a place at its cell's settings."""
    settings = {key: value for key, value in place.cell.settings.items() if key not in OWN}
    if world := settings.pop("world", None):
        settings["world"] = json.dumps(world)
    given = {"logs": place.cell.log, "first_seed": place.first_seed, "seeds": place.seeds, **settings}
    log = Experiment(CellConfig.checked(given), place.cell.log, store)

    def samples() -> int:
        return store.training_samples(log.run_config(CLAIMED, place.first_seed))

    if part := place.cell.settings.get("part"):
        log.config = log.config.model_copy(update={"most_samples": max(1, round(part * samples()))})
    if steps := place.cell.settings.get("steps"):
        log.config = log.config.model_copy(update={"batch_size": max(2, round(samples() / steps))})
    return log


def runs_of(place: Place, log: Experiment) -> dict[str, list[Run]]:
    """The trainings of every model of a place."""
    further = place.cell.settings.get("train", {})
    wide = {WIDE: (REFERENCE, {"size": 2 * log.config.size})}
    asked = [wide.get(name, (name, {})) for name in place.cell.models]
    return {
        name: log.runs_at(model, **changes, **further)
        for name, (model, changes) in zip(place.cell.models, asked, strict=True)
    }


def attention_effects(log: Experiment, runs: Runs) -> dict[str, Replicates]:
    """A2 to A4 of DARE and TWIN."""
    of: dict[str, dict[str, list[np.ndarray]]] = {}
    weights = []
    for at, seed in enumerate(log.seeds):
        splits = log.samples(seed)
        test = splits["test"]
        weights.append(log.weights(test))
        gains, same = information_gains(splits["train"], test, RULE), same_category_counts(test)
        for name in (CLAIMED, REFERENCE):
            found = retrieve(runs[name][at].model(log.log_of(seed)), test, log.config.top_k, RECENT)
            values = {
                "A2": np.where(same > 0, found.recent_other, np.nan),
                "A3": candidate_ndcg(gains.information, found.order, gains.judged)[..., -1],
                "A4": left_out_share(found.order, test),
            }
            for claim, value in values.items():
                of.setdefault(claim, {}).setdefault(name, []).append(value)
    means = {claim: {name: candidate_means(v, weights) for name, v in each.items()} for claim, each in of.items()}
    with np.errstate(invalid="ignore", divide="ignore"):
        ndcg = np.log(means["A3"][CLAIMED] / means["A3"][REFERENCE])
    return {claim: means[claim][REFERENCE] - means[claim][CLAIMED] for claim in ("A2", "A4")} | {"A3": ndcg}


def effects_of(log: Experiment, runs: Runs) -> dict[str, Replicates]:
    """The effects that a place's models can show, each (S, 1 + G)."""
    found: dict[str, Replicates] = {}
    records = [run.gradients for run in runs.get(REFERENCE, []) if run.gradients is not None]
    if records:
        norms = [[record.of(f"{of}_norm", "category")[:FIRST].mean() for record in records] for of in MODULES]
        found["G1"] = np.log(norms[0])[:, None] - np.log(norms[1])[:, None]
        found["G2"] = np.array([[negative_steps(record.of("mean_cosine", "category"))] for record in records])
    auc = {name: log.auc_of(own) for name, own in runs.items()}
    for claim, first, second in (
        ("O1", CLAIMED, REFERENCE),
        ("equal width", CLAIMED, WIDE),
        ("P1", REFERENCE, PROJECTION),
    ):
        if first in auc and second in auc:
            found[claim] = auc[first] - auc[second]
    if CLAIMED in runs:
        rule = log.rule_scores("validation")[log.best_rule()[0]]
        levels = TRIVIAL_AUC + SHARE * (log.auc_replicates(rule, split="validation") - TRIVIAL_AUC)
        slow, fast = (iterations(log, runs[name], levels) for name in (REFERENCE, CLAIMED))
        found["C1"] = np.log(slow) - np.log(fast)
        found |= attention_effects(log, runs)
    return found


def facts_of(log: Experiment, runs: Runs) -> dict[str, Any]:
    """What a point rests on: samples, steps, and the test AUC of models, of the best rule and of the oracle."""
    found: dict[str, Any] = {"training samples": log.training_samples, "steps": log.steps}
    if CLAIMED in runs:
        rule, auc = log.best_rule()
        found |= {"best rule": rule, "AUC of the rule": auc}
        oracle = {name: float(log.auc_replicates(scores)[0, 0]) for name, scores in log.oracle_scores().items()}
        found["AUC of the oracle"] = oracle.get(ORACLE)
    for name, own in runs.items():
        found[f"validation AUC, {name}"] = float(np.mean([run.best.auc for run in own]))
        found[f"AUC, {name}"] = float(log.auc_of(own)[:, 0].mean())
    return found


def measure(place: Place) -> Point:
    """Train what is missing and measure: a row with an effect each, with its interval where seeds share one log."""
    log = experiment_of(place, RunStore(progress=False, threads=1))
    runs = runs_of(place, log)
    point: Point = {"block": place.cell.block, "cell": place.cell.name, "seed": place.first_seed, "seeds": place.seeds}
    point |= facts_of(log, runs)
    if place.cell.block in ("W", "R"):
        point |= properties_of(log)
    for claim, replicates in effects_of(log, runs).items():
        found = interval(replicates)
        point |= {claim: found.estimate} if place.of_worlds else columns(claim, found)
    return {key: None if isinstance(v, float) and not np.isfinite(v) else v for key, v in point.items()}


def _path_of(place: Place) -> str:
    cell = place.cell
    settings = [cell.log, dict(cell.settings), cell.models, place.first_seed, place.seeds, cell.block, cell.name]
    return short_hash(canonical_json([METHOD, RunStore(progress=False, threads=1).code, settings]))


def stored_point(place: Place) -> Point:
    """A point, read where it is stored, measured and stored where not."""
    path = store_root() / "points" / f"{_path_of(place)}.json"
    if not path.exists():
        write_json(path, measure(place))
    return json.loads(path.read_text("utf-8"))


def measured(wanted: Sequence[Place]) -> Iterator[Point]:
    """The points of places, as they come, in as many processes as `side_by_side` says; shows progress on a terminal.

    Raises InputError for a log that is not prepared.
    """
    processes = min(side_by_side(), len(wanted))
    found = in_processes(stored_point, wanted, processes) if processes > 1 else map(stored_point, wanted)
    yield from tqdm(found, total=len(wanted), unit="point", disable=None, leave=False)


def computed(blocks: Sequence[str], seeds: int, levels: Sequence[str] = ()) -> list[Point]:
    """The points of the cells of some blocks that have these levels, in the protocol's order, with so many seeds of a
    cell at most. Raises InputError for an unknown block, for levels that no cell has, and for a log that is not
    prepared."""
    asked = [cell for block in blocks for cell in cells(block)]
    kept = [cell for cell in asked if {*levels} <= {*cell.levels.values()}]
    if asked and not kept:
        raise InputError(f"levels: no cell of {', '.join(blocks)} has {', '.join(levels)}.")
    wanted = places(kept, seeds)
    order = {(place.cell.block, place.cell.name, place.first_seed): at for at, place in enumerate(wanted)}
    return sorted(measured(wanted), key=lambda point: order[identity(point)])


def identity(point: Point) -> tuple[str, str, int]:
    """Block, cell and first seed of a point."""
    return point["block"], point["cell"], point["seed"]


def joined_points(stored: Sequence[Point], own: Sequence[Point]) -> list[Point]:
    """Points that are stored and those of this run, which replace them, unless the stored ones are of more seeds."""
    return list({identity(p): p for p in sorted([*stored, *own], key=lambda point: point["seeds"])}.values())
