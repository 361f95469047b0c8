"""Where the store is, and folders that several processes work at."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dare_core.files import locked, remove_folder, store_root


def test_the_store_is_found_from_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DARE_STORE")
    below = tmp_path / "project" / "notebooks" / "own"
    below.mkdir(parents=True)
    monkeypatch.chdir(below)
    assert store_root() == below / "store"
    (tmp_path / "project" / "pyproject.toml").write_text('[project]\nname = "another"\n')
    (tmp_path / "project" / "store").mkdir()  # somebody else's
    assert store_root() == below / "store"
    (tmp_path / "store" / "runs").mkdir(parents=True)
    assert store_root() == tmp_path / "store"
    (tmp_path / "project" / "pyproject.toml").write_text('[project]\nname = "dare_core"\n')
    assert store_root() == tmp_path / "project" / "store"
    (below / "store" / "logs").mkdir(parents=True)
    assert store_root() == below / "store"
    monkeypatch.setenv("DARE_STORE", str(tmp_path / "told"))
    assert store_root() == tmp_path / "told"


def test_a_folder_that_several_remove_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    barrier = threading.Barrier(4)

    def remove(_: int) -> None:
        barrier.wait()
        remove_folder(folder)

    for _ in range(20):
        folder.mkdir()
        (folder / "run.json").write_text("{}")
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(remove, range(4)))
        assert not list(tmp_path.iterdir())


def test_one_at_a_time_in_a_locked_folder(own_store: Path) -> None:
    inside: list[int] = []

    def work(_: int) -> None:
        with locked(own_store / "runs" / "a"):
            inside.append(1)
            assert sum(inside) == 1
            time.sleep(0.02)
            inside.append(-1)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with locked(own_store / "runs" / "a"), locked(own_store / "runs" / "b"):  # others do not wait
        assert len(inside) == 8
