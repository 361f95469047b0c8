"""Large logs: generated raw files, the one-pass reading against the general one, samples against brute force."""

import csv
import gzip
import hashlib
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from conftest import SMALL_SAMPLES, make_log

from dare_core import cli
from dare_core.config import SampleConfig
from dare_core.data import delimited, generated_file, log_files, logs, readers, samples
from dare_core.data.generated_file import file_size, row_blocks, write_taobao
from dare_core.data.intake import rows as intake_rows
from dare_core.data.intake.rows import number
from dare_core.data.log_statistics import statistics, taobao_statistics
from dare_core.data.logs import Log, load, prepare
from dare_core.data.samples import first_clicks, item_counts, make_samples
from dare_core.errors import InputError
from dare_core.files import sha256_of

PERIOD = (1_511_539_200, 1_512_316_800)


def raw_rows(rows: int, seed: int = 0, shift: int = 0) -> list[list[str]]:
    """Rows as in Taobao's file, users contiguous."""
    rng = np.random.default_rng(seed)
    users = np.sort(rng.integers(1, rows // 20 + 2, rows))[::-1]
    items, behaviours = rng.integers(1, 50, rows) + shift, rng.choice(["pv", "buy", "cart"], rows, p=[0.8, 0.1, 0.1])
    times = rng.integers(*PERIOD, rows)
    return [[str(u), str(i), str(i % 7), b, str(t)] for u, i, b, t in zip(users, items, behaviours, times, strict=True)]


def by_hand(rows: list[list[str]]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Items, categories, offsets and latest categories of the `pv` rows, counted one by one."""
    numbers: dict[str, dict[str, int]] = {"user": {}, "item": {}, "category": {}}
    clicks = [row for row in rows if row[3] == "pv"]
    order = {user: i for i, user in enumerate(dict.fromkeys(row[0] for row in clicks))}
    if len(order) < len(list(groupby(clicks, lambda row: row[0]))):  # users are not contiguous
        clicks.sort(key=lambda row: (order[row[0]], int(row[4])))
    numbered = [
        [known.setdefault(value, len(known) + 1) for known, value in zip(numbers.values(), row[:3], strict=True)]
        for row in clicks
    ]
    counts = Counter(user for user, _, _ in numbered)
    latest: dict[int, tuple[int, int]] = {}
    for (_, item, category), row in zip(numbered, clicks, strict=True):
        if int(row[4]) >= latest.get(item, (-1, 0))[0]:
            latest[item] = (int(row[4]), category)
    return (
        [item for _, item, _ in numbered],
        [category for _, _, category in numbered],
        [0, *np.cumsum([counts[u] for u in sorted(counts)]).tolist()],
        [0, *(latest[i][1] for i in sorted(latest))],
    )


def lines(rows: list[list[str]], end: str = "\n") -> bytes:
    return "".join(",".join(row) + end for row in rows).encode()


def same_as(log: Log, rows: list[list[str]]) -> bool:
    arrays = (log.items, log.categories, log.offsets, log.item_category)
    return all(a.tolist() == b for a, b in zip(arrays, by_hand(rows), strict=True))


# --- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 7, 400, 10_000])
@pytest.mark.parametrize("shift", [0, 2**31 - 25, 10**17, -30])
def test_reading_in_batches_equals_counting_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int, shift: int
) -> None:
    monkeypatch.setattr(delimited, "ROWS_PER_BATCH", batch)
    monkeypatch.setattr(readers, "checked_batches", lambda *_: pytest.fail("a sound file was read line by line"))
    rows = raw_rows(400, shift=shift)
    path = tmp_path / "a.csv"
    for seed, end in enumerate(("\n", "\r\n")):
        path.write_bytes(lines(rows, end))
        log = prepare("taobao", path, name=f"a{seed}")
        assert same_as(log, rows) and log.card.rows_read == 400
        assert log.card.sha256 == sha256_of(path)
        assert log.fingerprint == load(f"a{seed}").fingerprint
    shuffled = [rows[i] for i in np.random.default_rng(1).permutation(len(rows))]
    path.write_bytes(lines(shuffled))
    assert same_as(prepare("taobao", path, name="shuffled"), shuffled)
    stored = pl.read_parquet(logs.store_root() / "logs/shuffled/log.parquet")
    assert stored["time"].dtype == pl.Int64
    assert sorted(stored["time"]) == sorted(int(row[4]) for row in rows if row[3] == "pv")


def test_batches_arrive_at_the_size_asked_for(tmp_path: Path) -> None:
    """Else the test above would not meet the edges between them."""
    (tmp_path / "a.csv").write_bytes(lines(raw_rows(100)))
    batches = list(pl.scan_csv(tmp_path / "a.csv", has_header=False).collect_batches(chunk_size=7, maintain_order=True))
    assert max(batch.height for batch in batches) == 7


@pytest.mark.parametrize("batch", [1, 5, 10_000])
def test_the_line_by_line_way_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    monkeypatch.setattr(delimited, "ROWS_PER_BATCH", batch)
    rows = raw_rows(200)
    (tmp_path / "a.csv").write_bytes(lines(rows))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(lines(rows)))
    bad = [*rows[:90], ["1", "2", "3"], *rows[90:150], ["1", "x", "3", "pv", "4"], *rows[150:]]
    (tmp_path / "bad.csv").write_bytes(b"\n" + lines(bad, "\r\n"))
    fast, packed = (prepare("taobao", tmp_path / name, name="a") for name in ("a.csv", "a.csv.gz"))
    skipped = prepare("taobao", tmp_path / "bad.csv", name="a", on_bad_rows="skip")
    with pytest.raises(
        InputError, match=r"2 of 202 rows .*fields, 5 wanted \(1 row: line 92 with 3\).*\(1 row: line 153: 'x'\)"
    ):
        prepare("taobao", tmp_path / "bad.csv", name="a")

    def no_fast_way(*_: object) -> None:
        raise pl.exceptions.ComputeError("not sound")

    monkeypatch.setattr(readers, "sound_batches", no_fast_way)
    slow = prepare("taobao", tmp_path / "a.csv", name="a")
    assert slow.card == fast.card and slow.fingerprint == fast.fingerprint == packed.fingerprint == skipped.fingerprint
    assert (skipped.card.rows_read, skipped.card.bad_rows) == (202, 2)


def test_files_prepared_at_once_under_one_name_are_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each gets its own log back, and the later one stays: never the rows of one with the card of the other."""
    for number_, name in enumerate("ab"):
        (tmp_path / f"{name}.csv").write_bytes(lines(raw_rows(100, seed=number_)))
    both = threading.Barrier(2, timeout=1)
    store = logs.store_log

    def slow(*built: Any, overwrite: bool) -> Log:
        with suppress(threading.BrokenBarrierError):
            both.wait()  # passes only where both are about to replace the older log
        return store(*built, overwrite=overwrite)

    monkeypatch.setattr(logs, "store_log", slow)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda name: prepare("taobao", tmp_path / f"{name}.csv", name="one"), "ab"))
    assert both.broken and found[0].fingerprint != found[1].fingerprint
    assert load("one").card in [log.card for log in found]


@pytest.mark.parametrize("short", [["7", "2", "3", "pv"], ["7", "2", "3", "pv", ""], ["", "2", "3", "pv", "4"]])
def test_a_gap_in_any_batch_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: list[str]) -> None:
    monkeypatch.setattr(delimited, "ROWS_PER_BATCH", 20)
    rows = raw_rows(100)
    (tmp_path / "a.csv").write_bytes(lines([*rows[:70], short, *rows[70:]]))
    with pytest.raises(InputError, match=r"1 of 101 rows cannot be used: .*\(1 row: line 71( with 4|: '')?\)"):
        prepare("taobao", tmp_path / "a.csv", name="a")
    assert same_as(prepare("taobao", tmp_path / "a.csv", name="a", on_bad_rows="skip"), rows)


def test_an_interrupted_preparation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.csv").write_bytes(lines(raw_rows(50)))
    before = prepare("taobao", tmp_path / "a.csv", name="a")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    for module, step in ((readers, "_narrow"), (log_files, "_fingerprint"), (log_files, "write_json")):
        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(module, step, stop)
            prepare("taobao", tmp_path / "a.csv", name="b")
    assert [path.name for path in (logs.store_root() / "logs").iterdir()] == ["a"]
    assert not [path for path in logs.store_root().iterdir() if path.name.startswith(".writing")]
    assert load("a").fingerprint == before.fingerprint


def test_numbers_do_not_depend_on_how_they_are_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for low, high in ((1, 60), (-40, 20), (2**40, 2**40 + 90), (-(2**62), 2**62)):
        ids = rng.integers(low, high, 500)
        known: dict[int, int] = {}
        expected = [known.setdefault(i, len(known) + 1) for i in ids.tolist()]
        column = pl.concat([pl.Series("a", part) for part in np.split(ids, [3, 4, 250])])
        assert column.n_chunks() == 4
        for kind in (column, column.cast(pl.String), column.cast(pl.Int128)):
            assert number(kind).to_list() == expected and number(kind).dtype == pl.Int32
        small = number(column)
        assert number(small.cast(pl.UInt64)).to_list() == small.to_list()
    monkeypatch.setattr(intake_rows, "SMALL_LOOKUP", 10)
    assert number(pl.Series([7, 90_000, 7, 1])).to_list() == [1, 2, 1, 3]
    assert number(pl.Series([None, 5, None, 5], dtype=pl.Int64)).to_list() == [1, 2, 1, 2]


# --- samples ------------------------------------------------------------------------------------------------


def test_first_clicks_and_counts_by_brute_force() -> None:
    log = make_log(users=30, items=40)
    users, items = (grid.ravel() for grid in np.meshgrid(np.arange(30), np.arange(1, 41), indexing="ij"))
    found = first_clicks(log, users, items.astype(np.int32))
    for user, item, row in zip(users, items, found, strict=True):
        start, stop = log.offsets[user : user + 2]
        at = np.flatnonzero(log.items[start:stop] == item)
        assert row == (start + at[0] if len(at) else np.iinfo(np.int64).max)
    until = log.offsets[1:] - np.arange(30)
    before = np.concatenate([log.items[a:b] for a, b in zip(log.offsets, until, strict=False)])
    assert np.array_equal(item_counts(log, until), np.bincount(before, minlength=41))
    assert np.array_equal(item_counts(log), np.bincount(log.items, minlength=41))


@pytest.mark.parametrize(("history", "spacing"), [(1, 3), (2, 3), (5, 2), (300, 1)])
def test_seen_items_by_brute_force(history: int, spacing: int) -> None:
    log = make_log(users=40, items=900)
    config = SMALL_SAMPLES.model_copy(update={"history": history, "spacing": spacing})
    train = make_samples(log, config, 1)["train"]
    seen = samples.seen_items(log, config, (train.row.numpy(), train.users.numpy()), train.items.numpy())
    expected = set(train.items.numpy().ravel().tolist())
    for row, start in zip(train.row.tolist(), train.start.tolist(), strict=True):
        expected |= set(log.items[max(start, row - history) : row].tolist())
    assert set(np.flatnonzero(seen).tolist()) == expected
    assert len(expected) < 900


def test_samples_of_a_seed_stay_what_they_were() -> None:
    """Stored results rest on the sequence of draws: this digest was made when the samples were first published."""
    digest = hashlib.sha256()
    for config in (SMALL_SAMPLES, SMALL_SAMPLES.model_copy(update={"negative_counts": "training", "negatives": 5})):
        for split in make_samples(make_log(), config, 7).values():
            for name in ("users", "row", "start", "items", "categories", "new", "seen"):
                digest.update(np.ascontiguousarray(getattr(split, name).numpy().astype(np.int64)).data)
    assert digest.hexdigest()[:16] == "3848b96c493a62b0"


# --- generated files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def raw_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("raw") / "UserBehavior.csv"
    write_taobao(path, 300_000, seed=3)
    return path


def test_a_generated_file_has_the_published_shape(raw_file: Path) -> None:
    size = file_size(300_000)
    frame = pl.read_csv(raw_file, has_header=False, new_columns=["user", "item", "category", "behaviour", "time"])
    assert frame.height == 300_000 and (size.users, size.items, size.categories) == (2_952, 12_206, 28)
    clicks = frame.filter(pl.col("behaviour") == "pv")
    assert (clicks["user"].n_unique(), clicks["item"].n_unique()) == (size.users, size.items)
    assert clicks["category"].n_unique() == size.categories
    assert frame["user"].is_sorted() and frame["time"].is_between(*PERIOD, closed="left").all()
    assert ((frame["time"].diff().fill_null(0) >= 0) | (frame["user"].diff().fill_null(1) > 0)).all()
    assert 0.89 < clicks.height / frame.height < 0.90
    assert set(frame["behaviour"]) == {"pv", "cart", "fav", "buy"}
    long = (clicks.group_by("user").len()["len"] >= 210).mean()
    assert 0.077 < long < 0.097  # published: about 86,000 of 984,114
    assert frame.group_by("user", maintain_order=True).first()["behaviour"].unique().to_list() == ["pv"]
    assert clicks.group_by("item").agg(pl.col("category").n_unique())["category"].max() == 1
    of_click = pl.when(pl.col("behaviour") == "pv").then("item").forward_fill()
    assert frame.select((of_click == pl.col("item")).all()).item()  # other behaviours: the item clicked last
    same = (clicks["category"] == clicks["category"].shift())[1:].mean()
    assert same > 2 * float((clicks.group_by("category").len()["len"] / clicks.height).pow(2).sum())


def test_a_generated_file_is_read_as_generated(raw_file: Path) -> None:
    log = prepare("taobao", raw_file, name="big")
    assert log.card.kind == "generated log" and "Alibaba" not in log.card.source
    with raw_file.open() as file:
        rows = [row for _, row in zip(range(3_000), csv.reader(file), strict=False)]
    items, categories, _, _ = by_hand(rows)
    assert log.items[: len(items)].tolist() == items and log.categories[: len(items)].tolist() == categories
    splits = make_samples(log, SampleConfig(), 1)
    assert len(splits["test"]) == (np.diff(log.offsets) >= 210).sum() > 200


def test_same_seed_same_bytes_whatever_the_blocks(tmp_path: Path) -> None:
    contents = []
    for users_per_block, seed in ((10_000, 1), (1, 1), (7, 1), (7, 2)):
        write_taobao(tmp_path / "a.csv", 3_000, seed, users_per_block)
        contents.append((tmp_path / "a.csv").read_bytes())
    assert contents[0] == contents[1] == contents[2] != contents[3]
    assert contents[0].count(b"\n") == 3_000


@pytest.mark.parametrize("rows", [1, 2, 9, 101])
def test_tiny_files(tmp_path: Path, rows: int) -> None:
    write_taobao(tmp_path / "a.csv", rows)
    assert prepare("taobao", tmp_path / "a.csv", name="a").card.rows_read == rows


def test_interrupted_generation_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = generated_file._draw_clicks

    def stop(*arguments: object) -> None:
        if stop.calls:  # type: ignore[attr-defined]
            raise KeyboardInterrupt
        stop.calls = 1  # type: ignore[attr-defined]
        whole(*arguments)

    stop.calls = 0  # type: ignore[attr-defined]
    monkeypatch.setattr(generated_file, "_draw_clicks", stop)
    with pytest.raises(KeyboardInterrupt):
        write_taobao(tmp_path / "a.csv", 3_000, users_per_block=7)
    assert list(tmp_path.glob("*.csv")) == [] and not list(tmp_path.glob(".writing*"))
    with pytest.raises(InputError, match="is a folder"):
        write_taobao(tmp_path, 10)
    with pytest.raises(InputError, match="1 or more"):
        write_taobao(tmp_path / "a.csv", 0)


def test_a_file_of_the_published_size_resembles_the_head_of_the_real_log(tmp_path: Path) -> None:
    next(row_blocks(file_size(100_000_000), 1, 812)).write_csv(tmp_path / "a.csv", include_header=False)
    found, published = statistics(prepare("taobao", tmp_path / "a.csv", name="head")), taobao_statistics()["statistics"]
    for name in (
        "same category at lag 1", "same item at lag 2", "same category by chance", "category among the last 200",
        "item among the last 200", "distinct categories per 200 clicks, mean", "distinct items per 200 clicks, mean",
        "share of clicks on the top 10 categories", "share of clicks on the top 1000 items",
        "share of clicks on items clicked once",
    ):  # fmt: skip
        assert 0.75 < (found[name] or 0) / published[name] < 1.3, (name, found[name], published[name])


def test_the_command_writes_a_file_or_says_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def dare(*arguments: str) -> tuple[object, str]:
        monkeypatch.setattr(sys, "argv", ["dare", "data", "generate", *arguments])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        captured = capsys.readouterr()
        return stopped.value.code, captured.out + captured.err

    file = tmp_path / "a.csv"
    status, said = dare("--format", "taobao", "--rows", "1_000", "--seed", "4", str(file))
    assert status == 0 and "1,000 rows, 10 users" in said
    assert len(file.read_text().splitlines()) == 1_000
    for arguments in (("--format", "taobao", str(file)), ("--rows", "9"), ("--format", "tmall", "--rows", "9", "b")):
        status, said = dare(*arguments)
        assert status == 2 and "--format taobao --rows N FILE.csv" in said
