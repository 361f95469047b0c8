"""The authors' own files: `.pth` weights, and scores as their code would compute them.

Samples are in `samples`. Both formats are pickles, and a pickle can run code when it is read:
reading one needs the reader's word that its source is trusted. Even then only tensors and arrays of numbers
are let through.
"""

import json
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dare_core.data.samples import Batch
from dare_core.errors import InputError
from dare_core.files import atomic_path, write_json
from dare_core.models.click_model import PADDING_SCORE
from dare_core.models.embeddings import Counts
from dare_core.published.config import OfficialConfig, official_config, published_arguments
from dare_core.published.model import POSITIONS, build_official, labelled_loss, load_weights, published_weights
from dare_core.published.samples import need_trust, read_arrays
from dare_core.training.runs import WEIGHTS, read_run
from dare_core.training.store import find_run


def read_config(path: Path) -> OfficialConfig:
    """The published constructor's arguments from a JSON file."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} does not hold the constructor's arguments, a JSON object.")
    return official_config(values)


def read_weights(path: Path, trust: bool) -> dict[str, Tensor]:
    """Weights that the published code saved: a dictionary of tensors, anything else is refused."""
    need_trust(path, trust)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # what a damaged pickle raises cannot be listed
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} does not hold weights alone, or is damaged ({reason}).") from error
    if not isinstance(weights, dict) or not all(
        isinstance(name, str) and isinstance(weight, Tensor) for name, weight in weights.items()
    ):
        raise InputError(f"{path} does not hold a dictionary of tensors, as the published code saves it.")
    return dict(weights)


def read_batch(path: Path, config: OfficialConfig) -> tuple[Batch, Tensor]:
    """Batch of B samples and labels (B,) from an `.npz` file with `item`, `category`, `label` (B,),
    `history_items` and `history_categories` (B, max_length), 0 being padding."""
    names = ("item", "category", "label", "history_items", "history_categories")
    arrays = read_arrays(path, names, f"a batch with the arrays {', '.join(names)}")
    samples = len(arrays["item"]) if arrays["item"].ndim else 0
    limits = {"label": 2, "item": config.item_n, "history_items": config.item_n}
    for name, array in arrays.items():
        shape = (samples, config.max_length) if name.startswith("history") else (samples,)
        if array.shape != shape or not np.issubdtype(array.dtype, np.integer):
            raise InputError(f"{path}: {name} is {array.dtype} {array.shape}, not whole numbers {shape}.")
        limit = limits.get(name, config.cate_n)
        if array.size and not (array.min() >= 0 and array.max() < limit):
            raise InputError(f"{path}: {name} holds {array.min()} to {array.max()}, not 0 to {limit - 1}.")
    if samples < 2:
        raise InputError(f"{path} holds {samples} samples: BatchNorm in training mode needs two.")
    ids = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    batch = Batch(ids["item"][:, None], ids["category"][:, None], ids["history_items"], ids["history_categories"])
    return batch, ids["label"]


def score(config_path: Path, weights_path: Path, batch_path: Path, out_path: Path, trust: bool) -> None:
    """Write what the published code computes on a batch, in float64: an `.npz` file with `scores` (B, N),
    those that take no part at -2^32 + 1, `features` (B, F) of the main head, `probability` (B, 2), click first,
    `loss` (auxiliary loss included where `use_aux_loss` says so) and `auxiliary_loss` (else 0).

    BatchNorm normalises by the batch itself, as that code always does. Raises InputError for what cannot be
    read or does not fit together.
    """
    config = read_config(config_path)
    batch, labels = read_batch(batch_path, config)
    model = build_official(config).double()
    load_weights(model, read_weights(weights_path, trust))
    with torch.no_grad():
        output = model.train().compute(batch)
    assert output.auxiliary_logits is not None
    main = labelled_loss(output.logits[:, 0], labels)
    auxiliary = labelled_loss(output.auxiliary_logits[:, 0], labels) * config.use_aux_loss
    with atomic_path(out_path) as temporary, temporary.open("wb") as stream:
        np.savez(
            stream,
            scores=output.scores.masked_fill(~output.considered, PADDING_SCORE)[:, 0].numpy(),
            features=output.features[:, 0].numpy(),
            probability=(torch.softmax(output.logits[:, 0], -1) + 1e-8).numpy(),
            loss=(main + auxiliary).numpy(),
            auxiliary_loss=auxiliary.numpy(),
        )


def import_weights(config_path: Path, weights_path: Path, out_path: Path, trust: bool) -> None:
    """Write published weights as safetensors under our names."""
    model = build_official(read_config(config_path))
    load_weights(model, read_weights(weights_path, trust))
    with atomic_path(out_path) as temporary:
        save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, temporary)


def export_weights(config_path: Path, weights_path: Path, out_path: Path) -> None:
    """Write our weights (safetensors) as the published code saves them; position tables get its 2,000 rows."""
    config = read_config(config_path)
    model = build_official(config)
    state = model.state_dict()
    try:
        weights = load_file(weights_path)
    except Exception as error:  # safetensors raises an exception type of its own
        raise InputError(f"{weights_path} cannot be read as safetensors: {error}.") from error
    if not config.use_aux_loss:  # that code makes and stores the second head all the same
        weights = {k: v for k, v in state.items() if k.startswith("auxiliary_head.")} | weights
    if set(weights) != set(state):
        odd = sorted(set(weights) ^ set(state))[0]
        raise InputError(f"{weights_path} does not fit {config_path}: {odd!r} is in one of them alone.")
    for name, weight in weights.items():
        fits = weight.shape[1:] == state[name].shape[1:] and len(weight.shape) == len(state[name].shape)
        if not fits or (weight.shape != state[name].shape and not name.endswith(POSITIONS)):
            raise InputError(f"{name!r} has shape {tuple(weight.shape)}, not {tuple(state[name].shape)}.")
        if weight.shape != state[name].shape:
            weights[name] = nn.functional.pad(weight, (0, 0, 0, len(state[name]) - len(weight)))
    model.load_state_dict(weights)
    with atomic_path(out_path) as temporary:
        torch.save(published_weights(model, config.time_embedding_dim), temporary)


def export_run(prefix: str, folder: Path) -> None:
    """Write a stored run as the published code would: `config.json` and `weights.pth` in a folder.

    Raises InputError where that code has no counterpart of the model.
    """
    run = read_run(find_run(prefix))
    weights = run.folder / WEIGHTS
    with safe_open(weights, "pt") as stored:
        rows = {
            field: max(stored.get_slice(n).get_shape()[0] for n in stored.keys() if n.endswith(f".tables.{field}"))  # noqa: SIM118
            for field in ("item", "category")
        }
    counts = Counts(rows["item"] - 1, rows["category"] - 1, run.config.samples.history)
    values = published_arguments(run.config.model, counts, run.config.training.auxiliary_loss)
    write_json(folder / "config.json", values)
    export_weights(folder / "config.json", weights, folder / "weights.pth")
