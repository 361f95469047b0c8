"""A small log made by hand, a store of its own for every test, and chapters run in the tests' own process."""

import ast
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import polars as pl
import pytest
import torch

from dare_core.chapters import notebook_of
from dare_core.config import SampleConfig
from dare_core.data.logs import Card, Log, store_log
from dare_core.data.samples import Batch

torch.set_num_threads(1)  # small models: threads cost more than they give

SMALL_SAMPLES = SampleConfig(history=20, targets=4, spacing=3, shortest_user=25, negatives=2)


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nothing that a test stores is seen by another one."""
    monkeypatch.setenv("DARE_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("DARE_WORKERS", "1")  # processes side by side have tests of their own
    return tmp_path / "store"


def run_chapter(name: str, **parameters: Any) -> dict[str, Any]:
    """Run a chapter's notebook with parameters, as papermill does, but in this process.

    Returns its variables (`record` among them), and under `shown` what each code cell displayed last.
    """
    variables: dict[str, Any] = {}
    shown = []
    for cell in nbformat.read(notebook_of(name), as_version=4).cells:
        if cell.cell_type != "code":
            continue
        tree = ast.parse(cell.source)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, cell.id, "exec"), variables)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), cell.id, "eval"), variables))
        if "parameters" in cell.metadata.get("tags", []):
            variables |= parameters
    return variables | {"shown": shown}


def make_log(users: int = 60, items: int = 80, categories: int = 8, seed: int = 0, shortest: int = 10) -> Log:
    """A log in which the next click tends to stay in the previous one's category."""
    rng = np.random.default_rng(seed)
    item_category = np.concatenate([[0], rng.integers(1, categories + 1, items)]).astype(np.int32)
    lengths = rng.integers(shortest, 60, users)
    clicks = []
    for length in lengths:
        item = rng.integers(1, items + 1)
        for _ in range(length):
            same = np.flatnonzero(item_category == item_category[item])
            item = rng.choice(same) if rng.random() < 0.7 else rng.integers(1, items + 1)
            clicks.append(item)
    clicked = np.array(clicks, np.int32)
    card = Card(
        name="by_hand",
        title="A small log",
        kind="generated log",
        source="tests",
        terms="none",
        sha256="0",
        rows_read=len(clicked),
        rows_kept=len(clicked),
        users=users,
        items=items,
        categories=categories,
        filters=[],
        created_with={"seed": seed},
        fingerprint=f"by-hand-{users}-{items}-{seed}",
    )
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Log(card, clicked, item_category[clicked], offsets, item_category)


def store_small_log() -> None:
    """Store the log of `make_log`, so that other processes find it."""
    log = make_log()
    columns = {"user": np.repeat(np.arange(len(log.offsets) - 1) + 1, np.diff(log.offsets))}
    store_log(log.card, pl.DataFrame(columns | {"item": log.items, "category": log.categories}), log.item_category)


@pytest.fixture
def log() -> Log:
    return make_log()


def random_batch(
    histories: int = 6,
    candidates: int = 3,
    length: int = 12,
    items: int = 40,
    categories: int = 6,
    shortest: int = 0,
    seed: int = 0,
) -> Batch:
    """A batch with histories of `shortest` to `length` behaviours."""
    generator = torch.Generator().manual_seed(seed)
    history = torch.randint(1, items + 1, (histories, length), generator=generator)
    history_categories = torch.randint(1, categories + 1, (histories, length), generator=generator)
    lengths = torch.randint(shortest, length + 1, (histories,), generator=generator)
    padding = torch.arange(length) < (length - lengths).unsqueeze(1)
    return Batch(
        torch.randint(1, items + 1, (histories, candidates), generator=generator),
        torch.randint(1, categories + 1, (histories, candidates), generator=generator),
        history.masked_fill(padding, 0),
        history_categories.masked_fill(padding, 0),
    )
