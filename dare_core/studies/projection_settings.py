"""At which learning rate and initial values a model is compared: the shared setting, and its own best one.

A claim that a method fails is fair only at the method's best setting. The grid and the rule were fixed before any
result was read: every combination is trained with seed 1, the highest validation AUC wins (ties: the first), and
only the winner is trained with all seeds and tested.
"""

from dataclasses import dataclass
from typing import Any

from dare_core.click_model import MapInitial
from dare_core.models import model_spec
from dare_core.runs import Run
from dare_core.studies.common import Experiment
from dare_core.studies.stored import stored_result

LEARNING_RATES = (0.01, 0.003, 0.001)
INITIALS: tuple[MapInitial, ...] = ("published", "xavier", "identity")
SEARCH_SEED = 1


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


def run_of(experiment: Experiment, model: str, setting: Setting, seed: int, **changes: Any) -> Run:
    """One training run at a setting."""
    config = experiment.run_config(
        model, seed, learning_rate=setting.learning_rate, map_initial=setting.map_initial, **changes
    )
    return experiment.store.get(config)


def search(experiment: Experiment, model: str) -> list[dict[str, Any]]:
    """Every setting of a model with its validation AUC; exactly one is `chosen`."""
    found = [(setting, run_of(experiment, model, setting, SEARCH_SEED).best.auc) for setting in grid(model)]
    best = max(found, key=lambda pair: pair[1])[0]  # the first of equals
    return [
        {
            "log": experiment.name,
            "model": model,
            "learning rate": setting.learning_rate,
            "initial values of maps": setting.map_initial if has_maps(model) else None,
            "validation AUC": value,
            "chosen": setting == best,
        }
        for setting, value in found
    ]


def chosen(lines: list[dict[str, Any]], log: str, model: str) -> Setting | None:
    """The setting that a search chose for a model on a log; None where it was not searched."""
    for line in lines:
        if (line["log"], line["model"], line["chosen"]) == (log, model, True):
            return Setting(line["learning rate"], line["initial values of maps"] or "published")
    return None


def stored_search() -> list[dict[str, Any]]:
    """The lines of the search that is stored with the project; none where there is no stored result."""
    content = stored_result("projections")
    return content["tables"]["search"] if content else []
