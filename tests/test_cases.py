"""Files of practice that were read wrongly, a test for each kind: read as they are meant, or refused in words."""

import bz2
import gzip
import io
import json
import lzma
import os
import random
import sys
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fuzz
import numpy as np
import polars as pl
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dare_core import cli
from dare_core.config import SampleConfig
from dare_core.data.intake.times import as_text, read_times
from dare_core.data.logs import Log, find, lengths, load, load_times, prepare, shortest_user_error
from dare_core.data.samples import make_samples
from dare_core.errors import InputError

START = 1_600_000_000
ALL = {"category": "category", "time": "time"}
FIELDS = ["user", "item", "category", "time", "event"]


def clicks(users: int = 12, rows: int = 60, items: int = 80, seed: int = 1) -> pl.DataFrame:
    """A log: each user's rows in order of time, an item always in the same category."""
    rng = np.random.default_rng(seed)
    item = rng.integers(1, items + 1, (users, rows))
    time = START + rng.integers(0, 86_400, (users, 1)) + np.cumsum(rng.integers(1, 4_000, (users, rows)), axis=1)
    user = np.repeat(np.arange(1, users + 1), rows)
    frame = pl.DataFrame({"user": user, "item": item.ravel(), "category": item.ravel() % 6 + 1, "time": time.ravel()})
    return frame.with_columns(event=pl.Series(rng.choice(["view", "view", "cart"], users * rows)))


def csv_file(folder: Path, frame: pl.DataFrame, name: str = "a.csv") -> Path:
    frame.write_csv(folder / name)
    return folder / name


def refused(path: Path | Sequence[Path], **options: Any) -> str:
    """The words of the refusal, which are few whatever the file holds."""
    with pytest.raises(InputError) as error:
        prepare("table", path, name="a", **options)
    assert "\n" not in str(error.value) and len(str(error.value)) < 2_000
    return str(error.value)


def same(log: Log, other: Log) -> bool:
    return log.fingerprint == other.fingerprint


@pytest.fixture
def plain(tmp_path: Path) -> Log:
    """The log of a file without faults, to which others are compared."""
    return prepare("table", csv_file(tmp_path, clicks(), "plain.csv"), name="plain", **ALL)


# --- quotes -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("marks", [{100: '"Loud Al" Medley'}, {100: '"Harbour', 5_100: 'Harbour"'}, {7: '12" mix'}])
def test_quotes_in_a_file_that_does_not_quote(tmp_path: Path, marks: dict[int, str]) -> None:
    songs = [f"u{k // 250}\t{START + k}\tartist{k % 60}\t{marks.get(k, f'Song {k % 5}')}" for k in range(10_000)]
    (tmp_path / "a.tsv").write_text("user\ttime\tartist\ttitle\n" + "\n".join(songs) + "\n")
    log = prepare("table", tmp_path / "a.tsv", name="a", item="artist", time="time")
    assert (log.card.rows_kept, log.card.items) == (10_000, 60)
    assert log.card.found["quotes"] == "part of the text" and log.card.found["separator"] == "tab"
    by_title = prepare("table", tmp_path / "a.tsv", name="a", item="title", time="time")
    assert by_title.card.items == 5 + len(marks)


def test_a_quoted_field_that_holds_whole_rows_is_refused_with_its_lines(tmp_path: Path) -> None:
    rows = [f"u{k // 50},i{k % 9},text {k}" for k in range(500)]
    rows[100], rows[300] = 'u2,i1,"Har,bour', 'u6,i3,Harbour"'  # a separator too many: no row as it stands
    (tmp_path / "a.csv").write_text("user,item,note\n" + "\n".join(rows) + "\n")
    assert "from line 102 to line 302 and holds whole rows" in (words := refused(tmp_path / "a.csv"))
    assert "--no-quotes" in words
    log = prepare("table", tmp_path / "a.csv", name="a", quotes=False, on_bad_rows="skip")
    assert (log.card.rows_kept, log.card.bad_rows) == (499, 1)
    log = prepare("table", tmp_path / "a.csv", name="a", quotes=True, on_bad_rows="skip")
    assert (log.card.rows_kept, log.card.bad_rows) == (300, 0)


def test_quoted_fields_over_several_lines_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('user,item,note\n1,a,"two\nlines, and a comma"\n1,"b,c",x\n')
    log = prepare("table", tmp_path / "a.csv", name="a")
    assert (log.card.rows_kept, log.card.items, log.card.found["quotes"]) == (2, 2, "around some fields")


# --- times --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        *(
            "%Y-%m-%d %H:%M:%S UTC",
            "%Y/%m/%d %H:%M:%S",
            "%Y-%m-%dT%H:%M:%SZ",
            "%d.%m.%Y %H:%M:%S",
            "%m/%d/%Y %I:%M:%S %p",
        ),
        *("%d/%m/%Y %H:%M:%S", "%b %d, %Y %H:%M:%S", "%d-%b-%Y %H:%M:%S", "%a %b %d %H:%M:%S +0000 %Y"),
        *("%a, %d %b %Y %H:%M:%S GMT", "%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S.000+0000", "%d %B %Y, %H:%M:%S"),
    ],
)
def test_dates_in_many_forms(tmp_path: Path, plain: Log, form: str) -> None:
    days = clicks().with_columns(time=pl.from_epoch("time").dt.strftime(form))
    log = prepare("table", csv_file(tmp_path, days), name="a", **ALL)
    assert same(log, plain)
    assert np.array_equal(load_times(log), load_times(plain))  # type: ignore[arg-type]
    assert log.card.found["times"].startswith("dates")
    assert log.card.checks["first time"] == plain.card.checks["first time"]


@pytest.mark.parametrize("factor", [1_000, 1_000_000, 1_000_000_000])
def test_units_of_numbers_are_found(tmp_path: Path, plain: Log, factor: int) -> None:
    log = prepare("table", csv_file(tmp_path, clicks().with_columns(pl.col("time") * factor)), name="a", **ALL)
    assert same(log, plain) and np.array_equal(load_times(log), load_times(plain))  # type: ignore[arg-type]
    assert "seconds since 1970" in log.card.found["times"]


def test_dates_that_can_be_read_in_two_ways_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("user,item,time\n1,a,03/02/2024\n1,b,04/01/2024\n")
    words = refused(path, time="time")
    assert "3 Feb (day first)" in words and "2 Mar (month first)" in words and "--time-form day-first" in words
    assert prepare("table", path, name="a", time="time", time_form="day-first").items.tolist() == [1, 2]
    first = prepare("table", path, name="a", time="time", time_form="month-first").card.checks["first time"]
    assert first == "2024-03-02 00:00:00"
    assert prepare("table", path, name="a", time="time", time_form="%m/%d/%Y").card.checks["first time"] == first


def test_unreadable_times_are_shown_with_the_forms_that_can_be_read(tmp_path: Path) -> None:
    path = csv_file(tmp_path, clicks().with_columns(time=pl.format("week {} of the year", pl.col("time") % 52)))
    words = refused(path, **ALL)
    assert "lines 2: 'week " in words and "2024-01-31" in words and "--time-form" in words
    assert "--on-bad-rows skip" not in words  # it would skip everything
    path.write_text("user,item,time\n1,a,5\n1,b,soon\n1,c,7\n1,d,8\n")
    assert "--on-bad-rows skip" in refused(path, time="time")
    assert "no form of times 'soon'" in refused(path, time="time", time_form="soon")


def test_a_unit_that_changes_is_refused_with_its_row(tmp_path: Path) -> None:
    times = [START + k for k in range(50)] + [(START + k) * 1_000 for k in range(50)]
    path = csv_file(tmp_path, pl.DataFrame({"user": 1, "item": 2, "time": times}))
    words = refused(path, time="time")
    assert "unit of times changes: line 52 has" in words and "(milliseconds)" in words and "(seconds)" in words
    spread = pl.DataFrame({"user": 1, "item": 2, "time": [10**k * 3 for k in range(17)]})  # no gap: not a unit
    assert prepare("table", csv_file(tmp_path, spread), name="a", time="time").card.rows_kept == 17


def test_implausible_times_are_counted(tmp_path: Path) -> None:
    row = pl.int_range(pl.len())
    time = pl.when(row % 10 == 0).then(0).when(row % 99 == 1).then(4_000_000_000).otherwise("time")
    card = prepare("table", csv_file(tmp_path, clicks().with_columns(time=time)), name="a", **ALL).card
    assert (card.checks["times of zero"], card.checks["times far outside the others"]) == (72, 7)
    assert card.checks["first time"] == "1970-01-01 00:00:00" and card.checks["last time"].startswith("2096")


def test_ties_are_shuffled_or_keep_the_files_order(tmp_path: Path) -> None:
    day = clicks().with_columns(time=pl.from_epoch("time").dt.date()).sort("user", "time", "item")
    path = csv_file(tmp_path, day)
    log, again = (prepare("table", path, name="a", **ALL) for _ in range(2))
    as_in_file = prepare("table", path, name="b", ties="file", **ALL)
    assert same(log, again) and not same(log, as_in_file)
    ties = int(day.select(pl.struct("user", "time").is_duplicated().sum()).item())
    assert log.card.checks["rows of a user with equal times"] == ties > 600
    assert as_in_file.items.tolist() == pl.Series(day["item"]).rank("dense").replace_strict(
        {int(r): n for n, r in enumerate(dict.fromkeys(day["item"].rank("dense").to_list()), 1)}
    ).to_list()  # fmt: skip
    assert np.all(np.diff(load_times(log)[: log.offsets[1]]) >= 0)  # type: ignore[index]


# --- forms of files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", ["::", "\t", ";", "|", ",", "\x01", " "])
def test_separators_are_found_and_a_missing_header_is_named(tmp_path: Path, plain: Log, separator: str) -> None:
    lines = [separator.join(map(str, row)) for row in clicks().iter_rows()]
    (tmp_path / "a.dat").write_text("\n".join(lines) + "\n")
    words = refused(tmp_path / "a.dat", **ALL)
    assert "a header seems to be missing" in words and "--columns user,item,category,time" in words
    log = prepare("table", tmp_path / "a.dat", name="a", columns=FIELDS, **ALL)
    assert same(log, plain) and log.card.found["header"] == "named by --columns"
    assert "has 5 fields in its first row" in refused(tmp_path / "a.dat", columns=("user", "item"))
    (tmp_path / "b.dat").write_text("\n".join([separator.join(FIELDS), *lines]) + "\n")
    assert same(prepare("table", tmp_path / "b.dat", name="b", **ALL), plain)


def test_a_separator_can_be_given(tmp_path: Path, plain: Log) -> None:
    text = clicks().write_csv().replace(",", "#")
    (tmp_path / "a.txt").write_text(text)
    assert "--separator" in refused(tmp_path / "a.txt")
    assert same(prepare("table", tmp_path / "a.txt", name="a", separator="#", **ALL), plain)
    (tmp_path / "a.txt").write_text(text.replace("#", "~~"))
    assert same(prepare("table", tmp_path / "a.txt", name="a", separator="~~", **ALL), plain)
    (tmp_path / "a.txt").write_text("sep=~\n" + text.replace("#", "~"))
    assert same(prepare("table", tmp_path / "a.txt", name="a", **ALL), plain)


def test_lines_of_title_before_the_header_are_passed_over(tmp_path: Path, plain: Log) -> None:
    (tmp_path / "a.csv").write_text("Report, by user\n# from 2020\n\n" + clicks().write_csv())
    log = prepare("table", tmp_path / "a.csv", name="a", **ALL)
    assert same(log, plain) and log.card.found["header"] == "line 4"


def test_options_that_would_do_nothing_are_refused(tmp_path: Path) -> None:
    path = csv_file(tmp_path, clicks())
    assert "name that column too" in refused(path, copies="drop")
    assert "name that column too" in refused(path, time_form="seconds")
    clicks().write_parquet(tmp_path / "a.parquet")
    assert "is Parquet: --separator is for tables of text" in refused(tmp_path / "a.parquet", separator=";")


def test_a_row_equal_to_the_header_is_bad(tmp_path: Path) -> None:
    text = clicks().write_csv()
    (tmp_path / "a.csv").write_text(text + text)
    assert "a row equal to the header (1 row: line 722: 'user')" in refused(tmp_path / "a.csv", category="category")
    log = prepare("table", tmp_path / "a.csv", name="a", category="category", on_bad_rows="skip")
    assert (log.card.rows_kept, log.card.bad_rows, log.card.users) == (1_440, 1, 12)


PACKERS: dict[str, Any] = {
    "bzip2": bz2.compress,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "zstd": lambda data: pyarrow.compress(data, codec="zstd", asbytes=True),
}


@pytest.mark.parametrize("packing", [*PACKERS, "zip"])
def test_packed_files_are_read_whatever_their_name(tmp_path: Path, plain: Log, packing: str) -> None:
    data = clicks().write_csv().encode()
    if packing == "zip":
        with zipfile.ZipFile(tmp_path / "a.csv", "w") as archive:
            archive.writestr("clicks.csv", data)
    else:
        (tmp_path / "a.csv").write_bytes(PACKERS[packing](data))
    log = prepare("table", tmp_path / "a.csv", name="a", **ALL)
    assert same(log, plain) and log.card.found["packing"] == packing


def test_json_lines_are_read_and_other_json_is_named(tmp_path: Path, plain: Log) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(clicks().write_ndjson())
    log = prepare("table", path, name="a", **ALL)
    assert same(log, plain) and log.card.found["form"] == "JSON lines"
    assert "no field 'visitor': its fields are 'user', 'item'" in refused(path, user="visitor")
    lines = path.read_text().splitlines()
    path.write_text(
        "\n".join([*lines[:4], '{"user": 7', '{"user": null, "item": 3, "category": 1, "time": 5}', *lines])
    )
    words = refused(path, **ALL)
    assert "no JSON object (1 row: line 5: '{\"user\": 7')" in words and "no user (1 row: line 6: '')" in words
    path.write_text(json.dumps(clicks().to_dicts()))
    assert "is one JSON array" in refused(path)
    path.write_text(json.dumps({"rows": clicks().to_dicts()}, indent=1))
    assert "is JSON over several lines" in refused(path)


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"\xd0\xcf\x11\xe0" + b"\0" * 600, "Excel workbook"),
        (b"SQLite format 3\0" + b"\0" * 600, "SQLite"),
        (b"<!DOCTYPE html><html>log in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"\x93NUMPY" + b"\0" * 600, "NumPy"),
        (bytes(range(256)) * 300, "not a readable text file"),
        (b"user,item\n" + b"1,\0\n" * 30, "not a readable text file"),
    ],
)
def test_other_kinds_of_files_are_named(tmp_path: Path, head: bytes, words: str) -> None:
    (tmp_path / "a.csv").write_bytes(head)
    assert words in refused(tmp_path / "a.csv")
    with zipfile.ZipFile(tmp_path / "a.xlsx", "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    assert "Excel workbook (.xlsx)" in refused(tmp_path / "a.xlsx")


@pytest.mark.parametrize("before", ["\n", "\n\n \n", "\r\n", "\ufeff", "\ufeff\n"])
def test_blank_lines_and_marks_before_the_header(tmp_path: Path, plain: Log, before: str) -> None:
    (tmp_path / "a.csv").write_text(before + clicks().write_csv(), "utf-8", newline="")
    assert same(prepare("table", tmp_path / "a.csv", name="a", **ALL), plain)
    (tmp_path / "a.csv").write_text(before + clicks().write_csv() + "1,2,3,x,view\n", "utf-8", newline="")
    line = 722 + before.count("\n")
    assert f"line {line}: 'x'" in refused(tmp_path / "a.csv", **ALL)


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]
)
def test_encodings_are_found(tmp_path: Path, encoding: str) -> None:
    text = "user,item,who\n" + "".join(f"zoë{k % 3},café {k % 7},né\n" for k in range(90))
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    card = prepare("table", tmp_path / "a.csv", name="a").card
    assert (card.rows_kept, card.users, card.items) == (90, 3, 7)
    assert "zoë" in card.checks["largest user"]
    assert ("UTF-8" in card.found["encoding"]) == (encoding[:5] not in ("utf-1", "utf-3"))
    late = "user,item\n" + "1,a\n" * 90_000 + "2,é\n"
    (tmp_path / "a.csv").write_bytes(late.encode(encoding))
    assert prepare("table", tmp_path / "a.csv", name="a").card.items == 2


def test_an_encoding_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("пользователь,item\nАнна,1\n".encode("cp1251"))
    log = prepare("table", tmp_path / "a.csv", name="a", user="пользователь", encoding="cp1251")
    assert "Анна" in log.card.checks["largest user"]
    assert "no encoding 'base64'" in refused(tmp_path / "a.csv", encoding="base64")
    assert "give another --encoding" in refused(tmp_path / "a.csv", encoding="ascii")


def test_old_line_ends_are_read(tmp_path: Path, plain: Log) -> None:
    (tmp_path / "a.csv").write_text(clicks().write_csv().replace("\n", "\r"), newline="")
    assert same(prepare("table", tmp_path / "a.csv", name="a", **ALL), plain)


def test_several_files_a_folder_and_standard_input_are_one_log(
    tmp_path: Path, plain: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "parts"
    for day in ("day=1", "day=2"):
        (folder / day).mkdir(parents=True)
    (folder / "_SUCCESS").touch()
    first = csv_file(folder / "day=1", clicks().head(300), "part-0.csv")
    second = csv_file(folder / "day=2", clicks().tail(420).select(*reversed(FIELDS)), "part-1.csv")
    for paths in ([first, second], folder):
        log = prepare("table", paths, name="a", **ALL)
        assert same(log, plain) and log.card.found["files"] == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(clicks().write_csv().encode())))
    assert same(prepare("table", "-", name="a", **ALL), plain)
    second.write_text("user,item,category,time\n1,,3,4\n")
    assert f"no item (1 row: line 2 of {second}: '')" in refused(folder, **ALL)
    second.write_text("user,thing\n1,2\n")
    assert f"'{second}' has no column 'item'" in refused([first, second])
    clicks().write_parquet(folder / "c.parquet")
    second.unlink()
    assert prepare("table", folder, name="a", **ALL).card.rows_kept == 1_020


# --- ids ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [".0", " ", ".00"])
def test_ids_that_differ_only_in_blanks_or_zeros(tmp_path: Path, plain: Log, end: str) -> None:
    odd = pl.int_range(pl.len()) % 2 == 1
    user = pl.when(odd).then(pl.format("{}" + end, "user")).otherwise(pl.col("user").cast(pl.String))
    path = csv_file(tmp_path, clicks().with_columns(user=user))
    log = prepare("table", path, name="a", **ALL)
    assert log.card.users == 24 and log.card.checks["ids that differ only in blanks or .0"] == {"user": 12}
    assert same(prepare("table", path, name="a", ids="tidy", **ALL), plain)


@pytest.mark.parametrize("word", ["NULL", "null", "NaN", "None", "NA", "\\N", "", "  ", "<NA>"])
@pytest.mark.parametrize("column", ["user", "item", "category"])
def test_words_for_a_missing_id_are_bad_rows(tmp_path: Path, word: str, column: str) -> None:
    value = pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit(word)).otherwise(pl.col(column).cast(pl.String))
    path = csv_file(tmp_path, clicks().with_columns(value.alias(column)))
    assert f"no {column} (240 rows: lines 2: {word!r}, 5: " in refused(path, **ALL)
    assert prepare("table", path, name="a", on_bad_rows="skip", **ALL).card.rows_kept == 480


# --- what the rows say --------------------------------------------------------------------------------------


def test_copies_are_counted_and_can_be_left_out(tmp_path: Path, plain: Log) -> None:
    path = csv_file(tmp_path, pl.concat([clicks(), clicks()]))
    log = prepare("table", path, name="a", **ALL)
    assert (log.card.rows_kept, log.card.checks["exact copies"], log.card.checks["rows out of order"]) == (
        1440,
        720,
        12,
    )
    assert same(prepare("table", path, name="a", copies="drop", **ALL), plain)


def test_an_item_has_its_most_frequent_category_and_of_ties_the_latest(tmp_path: Path) -> None:
    rows = ["1,a,x,1", "1,a,y,2", "1,a,x,3", "1,b,x,4", "2,b,z,9", "2,c,x,1"]
    (tmp_path / "a.csv").write_text("user,item,category,time\n" + "\n".join(rows) + "\n")
    log = prepare("table", tmp_path / "a.csv", name="a", **ALL)
    assert log.items.tolist() == [1, 1, 1, 2, 3, 2] and log.categories.tolist() == [1, 1, 1, 2, 1, 2]
    assert log.item_category.tolist() == [0, 1, 2, 1] and log.card.categories == 2
    assert log.card.checks["items with several categories"] == 2
    assert np.array_equal(log.item_category[log.items], log.categories)
    assert any("the most frequent one" in words for words in log.card.filters)


def test_users_who_are_too_short_get_advice_that_works(tmp_path: Path) -> None:
    for longest, shortest in ((12, 12), (150, 30), (9, 1), (4, 4)):
        rng = np.random.default_rng(longest)
        frame = pl.concat(
            clicks(1, int(rows), seed=user).with_columns(user=user)
            for user, rows in enumerate(rng.integers(shortest, longest + 1, 40))
        )
        log = prepare("table", csv_file(tmp_path, frame), name="a", **ALL)
        with pytest.raises(InputError) as error:
            make_samples(log, SampleConfig(), 1)
        words = dict(
            part.split("=") for part in str(error.value).replace(",", "").split() if "=" in part and part[0].isalpha()
        )
        samples = make_samples(log, SampleConfig.model_validate(words), 1)
        assert len(samples["test"]) == (lengths(log) >= int(words["shortest_user"])).sum() >= 1
        assert len(samples["train"]) >= len(samples["test"])
    frame = clicks(5, 3)
    log = prepare("table", csv_file(tmp_path, frame), name="a", **ALL)
    assert "need users of 4 clicks" in str(shortest_user_error(log, 210))


def test_one_item_is_prepared_and_said(tmp_path: Path) -> None:
    log = prepare("table", csv_file(tmp_path, clicks().with_columns(item=1, category=1)), name="a", **ALL)
    assert (log.card.items, log.card.categories) == (1, 1)


def test_one_user_with_most_rows_is_named_and_can_be_left_out(tmp_path: Path, plain: Log) -> None:
    robot = clicks(1, 5_000).with_columns(user=pl.lit(9_999, pl.Int64))
    path = csv_file(tmp_path, pl.concat([clicks(), robot]))
    log = prepare("table", path, name="a", **ALL)
    assert log.card.checks["largest user"] == "'9999' has 5,000 of 5,720 rows (87.4 %)"
    assert same(prepare("table", path, name="a", leave_out_users=("9999",), **ALL), plain)
    assert same(prepare("table", path, name="a", longest_user=100, **ALL), plain)
    assert "no user '77' to leave out" in refused(path, leave_out_users=("9999", "77"))
    assert "no row is left" in refused(path, longest_user=1)


def test_keep_comes_before_the_other_checks(tmp_path: Path) -> None:
    seen = clicks().with_columns(
        event=pl.when(pl.int_range(pl.len()) % 5 == 0).then(pl.lit("search")).otherwise(pl.lit("view"))
    )
    viewed = pl.col("event") == "view"
    path = csv_file(tmp_path, seen.with_columns(pl.when(viewed).then(pl.col(c)).alias(c) for c in ("item", "time")))
    assert "no item (144 rows" in refused(path, **ALL)
    log = prepare("table", path, name="a", behaviour="event", keep=("view",), **ALL)
    assert (log.card.rows_kept, log.card.bad_rows) == (576, 0)


def test_a_period_can_be_read(tmp_path: Path) -> None:
    path = csv_file(tmp_path, clicks())
    middle = START + 86_400
    kept = clicks().filter(pl.col("time").is_between(middle, middle + 3_600, closed="left")).height
    dates = [as_text(float(at), read_times(pl.Series([START]))) for at in (middle, middle + 3_600)]
    for since, until in ((str(middle), str(middle + 3_600)), tuple(map(str, dates))):
        log = prepare("table", path, name="a", since=since, until=until, **ALL)
        assert log.card.rows_kept == kept > 0 and f"Kept the {kept:,} of 720 rows" in " ".join(log.card.filters)
    for wrong in ("soon", "2024", "-5"):
        assert "give a date" in refused(path, since=wrong, **ALL)
    assert "no row has a time" in refused(path, since="2030-01-01", **ALL)
    assert "need --time" in refused(path, since="2030-01-01")
    own = csv_file(tmp_path, clicks().with_columns(pl.col("time") - START))
    assert prepare("table", own, name="a", since="1000", **ALL).card.checks["first time"] >= 1_000
    assert "give a number" in refused(own, since="2020-01-01", **ALL)


def test_labels_make_clicks_and_what_was_shown(tmp_path: Path) -> None:
    rows = [
        "1,a,1,0",
        "1,b,2,0",
        "1,c,3,1",
        "1,d,4,0",
        "1,c,5,0",
        "1,e,6,0",
        "1,f,7,0",
        "2,a,1,yes",
        "2,g,2,no",
        "3,h,1,0",
    ]
    (tmp_path / "a.csv").write_text("user,item,time,clicked\n" + "\n".join(rows) + "\n")
    log = prepare("table", tmp_path / "a.csv", name="a", time="time", label="clicked")
    assert log.items.tolist() == [1, 2] and (log.card.items, log.card.users) == (6, 2)  # f and h are near no click
    names = {0: "", 1: "c", 2: "a", 3: "b", 4: "d", 5: "e", 6: "g"}
    assert log.shown is not None and log.shown.dtype == np.int32
    assert [[names[i] for i in row] for row in log.shown.tolist()] == [["b", "d", "a", "e"], ["g", "", "", ""]]
    stored = load("a")
    assert stored.shown is not None and np.array_equal(stored.shown, log.shown) and same(stored, log)
    without = prepare("table", csv_file(tmp_path, pl.DataFrame({"user": [1, 2], "item": ["c", "a"]})), name="b")
    assert without.shown is None and without.fingerprint != log.fingerprint
    (tmp_path / "a.csv").write_text("user,item,clicked\n1,a,perhaps\n1,b,1\n1,c,0\n")
    assert "label is neither 1 nor 0 (1 row: line 2: 'perhaps')" in refused(tmp_path / "a.csv", label="clicked")


def test_shown_items_by_brute_force(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frame = clicks(9, 40, 12).with_columns(label=pl.Series(rng.integers(0, 2, 360)))
    log = prepare("table", csv_file(tmp_path, frame), name="a", label="label", **ALL)
    expected = []
    for _, rows in frame.group_by("user", maintain_order=True):
        items, label = rows["item"].to_list(), rows["label"].to_list()
        for at in range(40):
            if label[at]:
                others = [k for k in range(40) if not label[k] and items[k] != items[at]]
                near = sorted(others, key=lambda k, at=at: (abs(k - at), k))[:4]  # type: ignore[misc]
                expected.append([items[k] for k in near])
    clicked = frame.filter(pl.col("label") == 1)["item"].to_list()
    raw = dict(zip(log.items.tolist(), clicked, strict=True))
    assert log.shown is not None
    for row, wanted in zip(log.shown.tolist(), expected, strict=True):
        assert [raw.get(i, wanted[k]) for k, i in enumerate(row)] == wanted
        assert [log.item_category[i] for i in row] == [log.item_category[i] for i in row if i] and len(set(row)) >= 1


def test_items_have_groups(tmp_path: Path) -> None:
    rows = ["1,a,x", "1,b,y", "2,a,z", "2,a,x", "2,c,"]
    (tmp_path / "a.csv").write_text("user,item,city\n" + "\n".join(rows) + "\n")
    log = prepare("table", tmp_path / "a.csv", name="a", group="city")
    assert log.item_group is not None and log.item_group.tolist() == [0, 1, 2, 3]
    assert np.array_equal(load("a").item_group, log.item_group)  # type: ignore[arg-type]
    assert any("3 groups by 'city'" in words for words in log.card.filters)
    plain = prepare("table", tmp_path / "a.csv", name="b")
    assert plain.item_group is None and not same(plain, log)


# --- Taobao's format ----------------------------------------------------------------------------------------


def test_taobao_rows_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    raw = clicks(40, seed=3).select("user", "item", "category", pl.lit("pv").alias("event"), "time")
    raw.write_csv(tmp_path / "a.csv", include_header=False)
    raw.sample(fraction=1, shuffle=True, seed=5).write_csv(tmp_path / "b.csv", include_header=False)
    log, shuffled = (prepare("taobao", tmp_path / f"{name}.csv", name=name) for name in "ab")
    assert shuffled.card.checks["rows out of order"] > 1_000 and log.card.checks["rows out of order"] == 0
    assert np.array_equal(np.sort(lengths(log)), np.sort(lengths(shuffled)))
    for of in (log, shuffled):
        times, starts = load_times(of), np.isin(np.arange(1, 2_400), of.offsets)
        assert times is not None and np.all((np.diff(times) >= 0) | starts)
    assert log.card.kind == shuffled.card.kind == "own log"


@pytest.mark.parametrize(
    ("users", "start", "item", "kind"),
    [
        ((1, 100, 1000), 1_511_600_000, 9, "published log"),
        ((1, 2, 3), 1_511_600_000, 9, "own log"),
        ((1, 100, 1000), 1_600_000_000, 9, "own log"),
        ((1, 100, 1000), 1_511_600_000, 6_000_000, "own log"),
    ],
)
def test_a_log_is_published_only_where_it_can_be(
    tmp_path: Path, users: tuple[int, ...], start: int, item: int, kind: str
) -> None:
    (tmp_path / "a.csv").write_text("".join(f"{user},{item},4,pv,{start + user}\n" for user in users))
    assert prepare("taobao", tmp_path / "a.csv", name="a").card.kind == kind


# --- names, two at once, consoles ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["generated", "independent", "no_decay", "no_semantics", "demonstration", "generated-twin-1"]
)
def test_names_of_generated_logs_are_refused(tmp_path: Path, name: str) -> None:
    path = csv_file(tmp_path, clicks())
    with pytest.raises(InputError, match="belongs to a log that the project generates"):
        prepare("table", path, name=name)
    assert prepare("table", path, name=name, built_in=True).card.name == name


def test_a_reader_never_misses_a_log_that_is_replaced_nor_reads_a_mixture(tmp_path: Path) -> None:
    paths = [csv_file(tmp_path, clicks(seed=seed), f"{seed}.csv") for seed in range(2)]
    known = {prepare("table", path, name="a", **ALL).fingerprint for path in paths}
    stop, wrong = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            try:
                log = find("a")
                if log is None or log.fingerprint not in known:
                    wrong.append(log)
            except Exception as error:
                wrong.append(error)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    logs = [prepare("table", path, name="a", **ALL) for path in paths * 10]
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong and [log.fingerprint for log in logs] == [logs[0].fingerprint, logs[1].fingerprint] * 10
    with pytest.raises(InputError, match="another log has been stored"):
        load_times(logs[0])
    assert load_times(logs[1]) is not None


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> object:
    monkeypatch.setattr(sys, "argv", ["dare", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


@pytest.mark.parametrize("encoding", ["cp437", "cp1252", "ascii"])
def test_consoles_that_cannot_print_every_letter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    path = csv_file(tmp_path, clicks().with_columns(user=pl.format("zoë☃{}", "user")), "ключ☃.csv")
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(io.BytesIO(), encoding=encoding))
    assert run(monkeypatch, "data", "prepare", "table", str(path), "--name", "a", "--time", "time") == 0
    sys.stdout.flush()
    assert b"rows_kept" in sys.stdout.buffer.getvalue()  # type: ignore[attr-defined]
    assert run(monkeypatch, "data", "prepare", "table", str(path), "--name", "☃") == 2


def test_a_files_name_may_be_any_bytes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.csv")
    try:
        path.write_text(clicks().write_csv())
    except OSError:
        pytest.skip("this file system has names of text alone")
    assert prepare("table", path, name="a").card.title == "caf?.csv"
    path.write_text("1,2,3,pv,4\n")
    assert prepare("taobao", path, name="a").card.source == "caf?.csv"
    assert "no column 'item'" in refused(csv_file(tmp_path, clicks().drop("item")))


def test_a_store_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = csv_file(tmp_path, clicks())
    (tmp_path / "file").touch()
    no_folder = str(tmp_path / "file")
    for store, words in (("", "is set, but empty"), (no_folder, "cannot be written"), (f"{no_folder}/x", "be written")):
        monkeypatch.setenv("DARE_STORE", store)
        assert run(monkeypatch, "data", "prepare", "table", str(path), "--name", "a") == 2
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1


def test_all_options_of_the_command_line_reach_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = clicks().with_columns(label=pl.int_range(pl.len()) % 2).rename({"user": "who"})
    path = tmp_path / "a.txt"
    path.write_text("".join("~".join(map(str, row)) + "\n" for row in frame.iter_rows()))
    arguments = (
        f"data prepare table {path} --name a --user who --columns who,item,category,time,event,label --separator ~ "
        "--time time --category category --behaviour event --keep view --label label --group event --no-quotes "
        "--encoding utf-8 --time-form seconds --ties file --copies drop --ids tidy --leave-out-users 3,4 "
        "--longest-user 1000 --since 2020-01-01 --until 2030-01-01 --on-bad-rows skip"
    )
    assert run(monkeypatch, *arguments.split()) == 0
    log = load("a")
    assert log.card.users == 10 and log.shown is not None and log.item_group is not None
    assert set(log.card.created_with) >= {"ties", "copies", "ids", "since", "label", "group", "quotes", "separator"}


def test_an_array_is_no_batch(tmp_path: Path) -> None:
    from dare_core.published.samples import read_table

    np.save(tmp_path / "a.npy", np.arange(10))
    for name, content in (("b.npy", b""), ("c.npy", b"PK\x03\x04")):
        (tmp_path / name).write_bytes(content)
    for name in "abc":
        with pytest.raises(InputError, match="does not hold samples"):
            read_table(tmp_path / f"{name}.npy")


# --- anything at all ----------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_random_tables_become_a_log_or_are_refused(tmp_path: Path, seed: int) -> None:
    fuzz.attempt(tmp_path / "file", *fuzz.case(seed))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.one_of(st.binary(max_size=300), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))))
def test_random_bytes_become_a_log_or_are_refused(tmp_path: Path, data: bytes) -> None:
    for start in (b"", b"user,item,time\n"):
        fuzz.attempt(tmp_path / "file", start + data, {"on_bad_rows": "skip"})


def test_the_fuzz_makes_logs_too(tmp_path: Path) -> None:
    """Else it would try refusals alone."""
    found = [fuzz.attempt(tmp_path / "file", *fuzz.case(seed)) for seed in random.Random(0).sample(range(10**6), 60)]
    assert found.count("log") >= 6


@pytest.mark.parametrize("kind", [8, 9])
def test_random_parameters_and_authors_files_are_read_or_refused(kind: int, tmp_path: Path) -> None:
    read = [fuzz.attempt_any(tmp_path / "file", 10 * seed + kind) for seed in range(200)]
    assert 0 < sum(read) < len(read)
