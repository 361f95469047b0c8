"""What a map costs: parameters, multiplications in search, and the measured time of a forward pass."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from dare_core.config import ModelConfig
from dare_core.data.samples import Batch
from dare_core.evaluation.metrics import Array
from dare_core.models.click_model import ClickModel
from dare_core.models.zoo import build_model, model_spec
from dare_core.studies.experiment import REFERENCE, Experiment
from dare_core.training.runs import counts_of

HISTORIES = 128
ROUNDS = 15


@torch.no_grad()
def pass_seconds(models: dict[str, ClickModel], batch: Batch, rounds: int = ROUNDS) -> dict[str, Array]:
    """Seconds (rounds,) of a forward pass of each model in evaluation mode; in every round each model has its
    turn, so that what disturbs the machine disturbs all alike. A first round is thrown away."""
    found: dict[str, list[float]] = {name: [] for name in models}
    for model in models.values():
        model.eval()
    for _ in range(rounds + 1):
        for name, model in models.items():
            started = time.perf_counter()
            model.compute(batch)
            found[name].append(time.perf_counter() - started)
    return {name: np.array(values[1:]) for name, values in found.items()}


def cost_rows(experiment: Experiment, names: Sequence[str]) -> list[dict[str, Any]]:
    """Cost of every model beside TWIN's: parameters, those in maps, multiplications of search for one behaviour,
    and the time of a forward pass (median over rounds, as a ratio to TWIN's in the same round)."""
    config = experiment.config
    counts = counts_of(experiment.log_of(1), config.samples_for(experiment.log_of(1)))
    samples = experiment.samples(1)["test"]
    batch = samples.batch(slice(0, min(HISTORIES, len(samples))))
    models = {name: build_model(ModelConfig(name=name, size=config.size, top_k=config.top_k), counts) for name in names}
    seconds = pass_seconds(models, batch)
    parameters = {name: sum(weight.numel() for weight in model.parameters()) for name, model in models.items()}
    rows = []
    for name, model in models.items():
        maps = model.embeddings.maps
        ratio = seconds[name] / seconds[REFERENCE]
        multiplications = model_spec(name).cost.multiplications(config.size, counts.history)
        rows.append(
            {
                "log": experiment.name,
                "model": name,
                "parameters": parameters[name],
                "more than TWIN": parameters[name] - parameters[REFERENCE],
                "of them in maps": 0 if maps is None else sum(weight.numel() for weight in maps.parameters()),
                "multiplications per behaviour": round(multiplications),
                "forward pass, ms": float(np.median(seconds[name])) * 1000,
                "over TWIN's": float(np.median(ratio)),
                "middle half": "[{:.2f}, {:.2f}]".format(*np.quantile(ratio, [0.25, 0.75])),
            }
        )
    return rows
