"""The authors' own samples: object `.npy` files, both directions.

Such a file is a pickle, and a pickle can run code when it is read: reading one needs the reader's word that
its source is trusted. Even then only arrays and lists of numbers are let through.
"""

import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dare_core.config import SampleConfig
from dare_core.data.logs import load
from dare_core.data.samples import Samples, make_samples
from dare_core.errors import InputError
from dare_core.files import atomic_path

ROWS = 102_400
"""Samples a published training file holds."""
SPLIT_NAMES = {"validation": "val", "test": "test"}
NUMPY_NAMES = {"_reconstruct", "scalar", "ndarray", "dtype"}
"""The names of numpy's that a pickled array of lists of numbers needs."""


def need_trust(path: Path, trust: bool) -> None:
    """Refuse to read a pickle unless its source is trusted."""
    if not trust:
        raise InputError(
            f"{path} is a pickle, and reading a pickle can run code that it holds: "
            "add --trust if you know where the file comes from."
        )
    if not path.is_file():
        raise InputError(f"There is no file {path}.")


@dataclass(frozen=True)
class SampleTable:
    """B samples as plain arrays; histories are left-padded with 0."""

    user: np.ndarray  # (B,)
    item: np.ndarray  # (B,)
    category: np.ndarray  # (B,)
    click: np.ndarray  # (B,) 1 for a click
    history_items: np.ndarray  # (B, N)
    history_categories: np.ndarray  # (B, N)

    def __len__(self) -> int:
        return len(self.item)

    def take(self, index: np.ndarray | slice) -> "SampleTable":
        """Some of the samples."""
        return SampleTable(*(getattr(self, column.name)[index] for column in fields(self)))


def sample_table(samples: Samples, index: slice = slice(None)) -> SampleTable:
    """Our samples, positive first, then its negatives; users are numbered from 1."""
    batch = samples.batch(index)
    candidates = batch.target_items.shape[1]
    histories = (batch.history_items, batch.history_categories)
    return SampleTable(
        samples.users[index].numpy().repeat(candidates) + 1,
        batch.target_items.flatten().numpy(),
        batch.target_categories.flatten().numpy(),
        samples.labels[index].ravel(),
        *(history.numpy().repeat(candidates, axis=0) for history in histories),
    )


class NumbersOnly(pickle.Unpickler):
    """Reads lists, numbers and numpy's arrays of them; any other name in the pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "numpy" and name in NUMPY_NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_object_array(path: Path) -> np.ndarray:
    """The pickled object array of an `.npy` file, by an unpickler that knows numbers only."""
    with path.open("rb") as stream:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
        if dtype != np.dtype(object):
            raise ValueError(f"it holds {dtype}, not objects")
        array = NumbersOnly(stream).load()
    if not isinstance(array, np.ndarray) or array.size != int(np.prod(shape)):
        raise ValueError("its array is not what its header says")
    return array.reshape(shape)


def read_samples(path: Path, trust: bool) -> SampleTable:
    """Samples of one published file: rows `[user, item, category, [1, 0] or [0, 1], item history, category
    history]`, the first of the pair being the click. Raises InputError for anything else."""
    need_trust(path, trust)
    try:
        rows = read_object_array(path)
        if rows.ndim != 2 or rows.shape[1] != 6 or not len(rows):
            raise ValueError(f"its shape is {rows.shape}, not (rows, 6)")
        columns = [np.array(rows[:, at].tolist()) for at in range(6)]
        for column, wanted in zip(columns, (1, 1, 1, 2, 2, 2), strict=True):
            if not np.issubdtype(column.dtype, np.integer) or column.ndim != wanted or (column < 0).any():
                raise ValueError("a row is not [user, item, category, [click, no click], items, categories]")
        if columns[3].shape[1] != 2 or (columns[3].sum(1) != 1).any() or columns[4].shape != columns[5].shape:
            raise ValueError("labels are not [1, 0] or [0, 1], or the two histories differ in length")
        if ((columns[4] == 0) != (columns[5] == 0)).any() or (columns[1] == 0).any():
            raise ValueError("items and categories of a history are not padded alike, or a target is padding")
    except Exception as error:  # what a damaged pickle raises cannot be listed
        raise InputError(f"{path} does not hold samples of the published form: {error}.") from error
    user, item, category, pair, items, categories = columns
    return SampleTable(user, item, category, pair[:, 0], items, categories)


def write_rows(path: Path, table: SampleTable) -> None:
    """Write samples as one published file."""
    rows = np.empty((len(table), 6), object)
    for at, column in enumerate((table.user, table.item, table.category)):
        rows[:, at] = column.tolist()
    for row, click, items, categories in zip(
        rows, table.click.tolist(), table.history_items.tolist(), table.history_categories.tolist(), strict=True
    ):
        row[3], row[4], row[5] = [click, 1 - click], items, categories
    with atomic_path(path) as temporary:
        np.save(temporary, rows, allow_pickle=True)


def training_tables(samples: Samples, seed: int) -> Iterator[SampleTable]:
    """Training samples in random order, a file's worth at a time."""
    candidates = samples.items.shape[1]
    order = np.random.default_rng([seed, 0x0FF1]).permutation(samples.size)
    for at in range(0, len(order), ROWS):
        chosen = order[at : at + ROWS]
        targets, place = np.unique(chosen // candidates, return_inverse=True)
        table = sample_table(samples, torch.from_numpy(targets))  # type: ignore[arg-type]
        yield table.take(place * candidates + chosen % candidates)


def write_samples(samples: Mapping[str, Samples], folder: Path, seed: int = 0) -> list[Path]:
    """Write the three splits as the published code stores them; returns the files.

    `train_0001_102400.npy` and so on hold the training samples, shuffled once by `seed`; `val.npy` and
    `test.npy` are not shuffled: a positive is followed by its negatives.
    """
    written = []
    for number, table in enumerate(training_tables(samples["train"], seed), 1):
        written.append(folder / f"train_{number:04d}_{len(table)}.npy")
        write_rows(written[-1], table)
    for split, name in SPLIT_NAMES.items():
        written.append(folder / f"{name}.npy")
        write_rows(written[-1], sample_table(samples[split]))
    return written


def write_table(path: Path, table: SampleTable) -> None:
    """Write samples as plain arrays, an `.npz` file."""
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, **asdict(table))


def read_arrays(path: Path, names: Sequence[str], what: str) -> dict[str, np.ndarray]:
    """Some arrays of an `.npz` file. Raises InputError, which says that the file does not hold `what`."""
    try:
        stored = np.load(path, allow_pickle=False)
        if not isinstance(stored, np.lib.npyio.NpzFile):
            raise ValueError("it holds one array without a name")
        with stored:
            return {name: stored[name] for name in names}
    except Exception as error:  # what a damaged archive raises cannot be listed
        raise InputError(f"{path} does not hold {what}: {error}.") from error


def read_table(path: Path) -> SampleTable:
    """Read what `write_table` wrote."""
    names = [column.name for column in fields(SampleTable)]
    return SampleTable(**read_arrays(path, names, "samples, as `dare official import` writes them"))


def export_log(name: str, seed: int, folder: Path, config: SampleConfig | None = None) -> list[Path]:
    """Write the samples of a prepared log as the published code stores them; returns the files."""
    return write_samples(make_samples(load(name), config or SampleConfig(), seed), folder, seed)
