"""At which learning rate and initial values a model is compared: the shared setting, and its own best one.

A claim that a method fails is fair only at the method's best setting. Every combination is trained with three seeds
(on generated logs: three worlds), the highest mean validation AUC wins (ties: the first), and only the winner is
trained with all seeds and tested. A search counts for the log, embedding size and number of epochs that it was made
with, and says nothing where most models choose a learning rate at the grid's edge: a better one may lie beyond it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from dare_core.models.interface import MapInitial
from dare_core.models.zoo import model_spec
from dare_core.report.stored import further_results, stored_result
from dare_core.studies.experiment import Experiment
from dare_core.studies.sweeps import made_with, searched
from dare_core.training.runs import Run

LEARNING_RATES = (0.03, 0.01, 0.003, 0.001)
INITIALS: tuple[MapInitial, ...] = ("published", "xavier", "identity")
SEARCH_SEEDS = 3
Lines = Sequence[Mapping[str, Any]]
"""Settings of a search, with the validation AUC of each."""


@dataclass(frozen=True)
class Setting:
    """What is searched."""

    learning_rate: float
    map_initial: MapInitial = "published"

    def describe(self, model: str) -> str:
        """In words; initial values only where the model has maps."""
        initial = f", maps {self.map_initial}" if has_maps(model) else ""
        return f"{model}: learning rate {self.learning_rate:g}{initial}"


def has_maps(model: str) -> bool:
    """Whether a model maps its embeddings."""
    return model_spec(model).maps is not None


def grid(model: str) -> list[Setting]:
    """The settings tried: learning rates, and for models with maps every initial value with each."""
    initials = INITIALS if has_maps(model) else INITIALS[:1]
    return [Setting(rate, initial) for rate in LEARNING_RATES for initial in initials]


def runs_of(
    experiment: Experiment, model: str, setting: Setting, seeds: Sequence[int] | None = None, **changes: Any
) -> list[Run]:
    """The runs of a model at a setting, one per seed: those of the experiment, or others."""
    chosen_rate = {"learning_rate": setting.learning_rate, "map_initial": setting.map_initial}
    wanted = experiment.seeds if seeds is None else seeds
    return experiment.store.get_many([experiment.run_config(model, seed, **chosen_rate, **changes) for seed in wanted])


def search(experiment: Experiment, model: str) -> list[dict[str, Any]]:
    """Every setting of a model with its validation AUC, mean over seeds; exactly one is `chosen`."""
    seeds = range(1, SEARCH_SEEDS + 1)
    found = [
        (setting, float(np.mean([run.best.auc for run in runs_of(experiment, model, setting, seeds)])))
        for setting in grid(model)
    ]
    best = max(found, key=lambda pair: pair[1])[0]  # the first of equals
    return [
        {
            "log": experiment.name,
            **made_with(experiment),
            "model": model,
            "learning rate": setting.learning_rate,
            "initial values of maps": setting.map_initial if has_maps(model) else None,
            "seeds": SEARCH_SEEDS,
            "validation AUC": value,
            "chosen": setting == best,
        }
        for setting, value in found
    ]


def choices(lines: Lines, experiment: Experiment) -> dict[str, Setting]:
    """The setting that a search chose for each model on this log at this size; empty where it was not searched."""
    return {
        line["model"]: Setting(line["learning rate"], line["initial values of maps"] or "published")
        for line in searched(experiment, lines)
        if line["chosen"]
    }


def edge_chosen(settings: Mapping[str, Setting]) -> bool:
    """Whether more than half of the models choose the highest or the lowest learning rate of the grid."""
    at_edge = [setting.learning_rate in (LEARNING_RATES[0], LEARNING_RATES[-1]) for setting in settings.values()]
    return sum(at_edge) > len(at_edge) / 2


def stored_search() -> list[dict[str, Any]]:
    """The lines of every search that is stored with the project."""
    contents = [stored_result("projections"), *further_results("projections").values()]
    return [line for content in contents if content for line in content["tables"].get("search", [])]
