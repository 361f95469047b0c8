"""Logs: what the readers keep, what they refuse and with which words, and how a log is stored."""

import gzip
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from dare_core.data import delimited, logs, readers
from dare_core.data.logs import (
    Card,
    available,
    find,
    lengths,
    load,
    prepare,
    remove,
    shortest_user_error,
    store_log,
)
from dare_core.errors import InputError

TAOBAO_HEAD = Path(__file__).parents[2] / "shared/data/taobao_head/UserBehavior.csv"
TAOBAO_ROWS = [
    "7,20,5,pv,1511544070",
    "7,21,5,buy,1511544071",
    "7,21,6,pv,1511544072",
    "3,20,5,pv,1511544000",
]
TMALL_HEADER = "user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DARE_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def sound_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file must be read by the fast way: the slow one fails the test."""
    for module in (readers, delimited):
        monkeypatch.setattr(module, "checked_batches", lambda *_: pytest.fail("a sound file was read line by line"))


def written(tmp_path: Path, name: str, lines: list[str]) -> Path:
    path = tmp_path / name
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def stored(store: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(store / "logs" / name / "log.parquet")


def assert_same(a: logs.Log, b: logs.Log) -> None:
    assert a.card == b.card
    assert a.fingerprint == b.fingerprint != ""
    for field in ("items", "categories", "offsets", "item_category"):
        first, second = getattr(a, field), getattr(b, field)
        assert first.dtype == second.dtype
        np.testing.assert_array_equal(first, second)


# --- what is kept -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("sound_only")
def test_taobao_keeps_clicks_in_file_order(tmp_path: Path, store: Path) -> None:
    log = prepare("taobao", written(tmp_path, "UserBehavior.csv", TAOBAO_ROWS), name="head")
    assert log.items.tolist() == [1, 2, 1]
    assert log.categories.tolist() == [1, 2, 1]
    assert log.offsets.tolist() == [0, 2, 3]
    assert log.item_category.tolist() == [0, 1, 2]
    assert (log.items.dtype, log.offsets.dtype) == (np.int32, np.int64)
    card = log.card
    assert (card.rows_read, card.rows_kept, card.users, card.items, card.categories) == (4, 3, 2, 2, 2)
    assert card.kind == "own log"  # of users 7 and 3
    assert stored(store, "head").columns == ["user", "item", "category", "behaviour", "time"]
    assert stored(store, "head")["behaviour"].unique().to_list() == ["pv"]
    assert_same(log, load("head"))


def test_taobao_counts_times_outside_the_period_and_keeps_them(tmp_path: Path) -> None:
    edges = [1_511_539_199, 1_511_539_200, 1_512_316_799, 1_512_316_800, -5]
    log = prepare("taobao", written(tmp_path, "a.csv", [f"1,{i},1,pv,{t}" for i, t in enumerate(edges)]), name="a")
    assert log.card.rows_kept == 5
    assert any(sentence.startswith("3 of them") for sentence in log.card.filters)


def test_users_that_are_not_contiguous_are_sorted_by_time(tmp_path: Path) -> None:
    rows = ["9,1,1,pv,5", "2,2,1,pv,1", "9,3,1,pv,2", "2,4,1,pv,1"]
    log = prepare("taobao", written(tmp_path, "a.csv", rows), name="a")
    assert log.offsets.tolist() == [0, 2, 4]
    assert log.items.tolist() == [1, 2, 3, 4]  # items 3, 1 of user 9 come first and are numbered first
    assert stored(tmp_path / "store", "a")["time"].to_list() == [2, 5, 1, 1]
    assert log.card.checks["rows out of order"] == 1 and "sorted by user and time" in log.card.filters[0]
    rows = ["9,1,1,pv,5", "9,3,1,pv,2", "2,2,1,pv,1"]  # contiguous: as in the published code
    log = prepare("taobao", written(tmp_path, "a.csv", rows), name="a")
    assert stored(tmp_path / "store", "a")["time"].to_list() == [5, 2, 1]
    assert log.card.checks["rows out of order"] == 1 and "in file order" in log.card.filters[0]


@pytest.mark.parametrize("name", ["UserBehavior.csv.zip", "UserBehavior.csv.gz"])
def test_packed_files_give_the_same_log(tmp_path: Path, store: Path, name: str) -> None:
    plain = written(tmp_path, "UserBehavior.csv", TAOBAO_ROWS)
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    else:
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.write(plain, "data/UserBehavior.csv")
            archive.writestr("__MACOSX/._UserBehavior.csv", "x")
    packed = prepare("taobao", tmp_path / name, name="packed")
    assert packed.fingerprint == prepare("taobao", plain, name="plain").fingerprint
    assert not list(store.glob(".writing-*"))


@pytest.mark.usefixtures("sound_only")
def test_tmall_is_sorted_by_user_and_day(tmp_path: Path, store: Path) -> None:
    rows = [
        TMALL_HEADER,
        "8,10,1,1,,1111,0",  # the brand is missing in some rows of the real file too
        "8,11,1,1,4,1110,0",
        "2,12,2,1,4,511,0",
        "8,13,1,1,4,1110,2",
        "8,14,1,1,4,1110,0",
    ]
    log = prepare("tmall", written(tmp_path, "user_log_format1.csv", rows), name="tmall")
    assert stored(store, "tmall")["time"].to_list() == [511, 1110, 1110, 1111]
    assert log.items.tolist() == [1, 2, 3, 4]
    assert log.offsets.tolist() == [0, 1, 4]
    assert (log.card.rows_read, log.card.rows_kept) == (5, 4)


@pytest.mark.usefixtures("sound_only")
@pytest.mark.parametrize("separator", [",", "\t", ";"])
def test_table_with_text_ids_and_dates(tmp_path: Path, store: Path, separator: str) -> None:
    rows = [
        ["who", "what", "kind", "when", "note"],
        ["zoë", "pen", "paper", "2024-01-03", '"a, b\tc; d"'],
        ["bob", "ink", "paper", "2024-01-02T10:00:00Z", "n"],
        ["zoë", "ink", "desk", "2024-01-01 09:30", "n"],
        ["bob", "pen", "paper", "2024-01-02 09:00:00.5+08:00", "n"],
    ]
    path = written(tmp_path, "mine.txt", [separator.join(row) for row in rows])
    log = prepare("table", path, name="mine", user="who", item="what", category="kind", time="when")
    assert log.card.kind == "own log"
    assert log.offsets.tolist() == [0, 2, 4]
    assert log.items.tolist() == [1, 2, 2, 1]  # zoë: ink, pen; bob: pen, ink
    assert log.item_category.tolist() == [0, 1, 1]  # ink once on paper and once on a desk: paper was later
    assert log.categories.tolist() == [1, 1, 1, 1] and log.card.checks["items with several categories"] == 1
    assert np.all(np.diff(stored(store, "mine")["time"].to_numpy())[[0, 2]] > 0)
    assert_same(log, load("mine"))


def test_table_without_category_or_time(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.csv", ["user,item", "b,x", "a,y", "b,z"])
    log = prepare("table", path, name="mine")
    assert log.items.tolist() == [1, 2, 3]
    assert log.categories.tolist() == [1, 1, 1]
    assert log.card.categories == 1
    assert "No category column was named: every item has category 1." in log.card.filters
    assert any("file's order" in sentence for sentence in log.card.filters)


def test_table_keeps_the_behaviours_asked_for(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.csv", ["user,item,act", "1,x,view", "1,y,buy", "1,z,like"])
    log = prepare("table", path, name="mine", behaviour="act", keep=["view", "buy"])
    assert (log.card.rows_read, log.card.rows_kept) == (3, 2)
    with pytest.raises(InputError, match=r"no row with behaviour 'click': its values are '(view|buy|like)' \(1 rows"):
        prepare("table", path, name="mine", behaviour="act", keep=["click"])
    with pytest.raises(InputError, match="name that column too"):
        prepare("table", path, name="mine", keep=["click"])


@pytest.mark.parametrize("times", [[3, 1, 2], [3.5, 1.5, 2.5], ["2024-03-01", "2024-01-01", "2024-02-01"]])
def test_parquet_with_any_kind_of_time(tmp_path: Path, times: list[object]) -> None:
    frame = pl.DataFrame({"user": [1, 1, 1], "item": ["c", "a", "b"], "t": times})
    for index, variant in enumerate([frame, frame.with_columns(pl.col("t").cast(pl.String).cast(pl.Categorical))]):
        variant.write_parquet(tmp_path / "log.bin")
        log = prepare("table", tmp_path / "log.bin", name=f"p{index}", time="t")
        assert stored(tmp_path / "store", f"p{index}")["time"].is_sorted()
        assert log.card.rows_kept == 3
    if isinstance(times[0], str):
        dates = frame.with_columns(pl.col("t").str.to_date())
        assert dates["t"].dt.epoch("s").sort().to_list() == stored(tmp_path / "store", "p0")["time"].to_list()


def test_blank_lines_windows_line_ends_and_byte_order_mark_are_no_faults(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf1,2,3,pv,5\r\n\r\n1,3,3,pv,6\r\n\r\n")
    log = prepare("taobao", path, name="a")
    assert (log.card.rows_read, log.card.rows_kept, log.card.bad_rows) == (2, 2, 0)
    path.write_bytes(b'\xef\xbb\xbfuser,item\r\n"1","a\r\nb"\r\n\r\n1,"c ""d"", e"\r\n')
    assert prepare("table", path, name="b").card.items == 2


def test_names_with_glob_characters_are_read_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "a[1]*").mkdir()
    assert prepare("taobao", written(tmp_path / "a[1]*", "b[2]?.csv", TAOBAO_ROWS), name="a").card.rows_kept == 3


# --- what is refused ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reader", ["taobao", "tmall", "table"])
def test_files_that_cannot_be_read(tmp_path: Path, reader: str) -> None:
    cases = {
        "absent.csv": (None, "there is no file .*absent.csv.*check the path"),
        "empty.csv": (b"", "is empty"),
        "picture.csv": (b"\x89PNG\r\n\x1a\n\xff\xfe\x00" * 9, "not a readable text file|no column|cannot be"),
        "short.parquet": (b"PAR1xx", "cannot be read|no column|nothing to read|rows cannot be used"),
        "broken.zip": (b"PK\x03\x04 no archive", "cannot be unpacked"),
        "broken.gz": (b"\x1f\x8b no archive", "cannot be unpacked"),
    }
    for name, (content, message) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=message) as error:
            prepare(reader, tmp_path / name, name="a")
        assert "\n" not in str(error.value)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="is a folder|holds no file"):
        prepare(reader, tmp_path / "folder", name="a")
    with zipfile.ZipFile(tmp_path / "two.zip", "w") as archive:
        archive.writestr("a.csv", "1")
        archive.writestr("b.csv", "1")
    with pytest.raises(InputError, match=r"holds 2 files \(a.csv, b.csv\), wanted one"):
        prepare(reader, tmp_path / "two.zip", name="a")
    assert available() == []


def test_missing_columns_are_named_with_the_nearest(tmp_path: Path) -> None:
    path = written(tmp_path, "mine.csv", ["User_ID,product,item", "1,2,3"])
    with pytest.raises(InputError, match=r"no column 'user_id' \(nearest: 'User_ID'\): its columns are 'User_ID', 'pr"):
        prepare("table", path, name="a", user="user_id")
    with pytest.raises(InputError, match=r"no column 'user_id'.*its columns are 'a'"):
        prepare("tmall", written(tmp_path, "t.csv", ["a", "1"]), name="a")
    pl.DataFrame({"user": [1], "thing": [2]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"no column 'item'.*its columns are 'user', 'thing'"):
        prepare("table", tmp_path / "a.parquet", name="a")
    with pytest.raises(InputError, match="has 2 columns named 'item'"):
        prepare("table", written(tmp_path, "twice.csv", ["user,item,item", "1,2,3"]), name="a")


def test_wrong_number_of_fields_names_lines_and_count(tmp_path: Path) -> None:
    rows = [*TAOBAO_ROWS, "1,2,3", *TAOBAO_ROWS, "1,2,3,pv,5,6", *["1"] * 5]
    path = written(tmp_path, "a.csv", rows)
    words = r"7 of 15 rows .*: wrong number of fields, 5 wanted \(7 rows: lines 5 with 3, 10 with 6, 11 with 1, .*, …\)"
    with pytest.raises(InputError, match=words + ".*--on-bad-rows skip"):
        prepare("taobao", path, name="a")
    log = prepare("taobao", path, name="a", on_bad_rows="skip")
    assert (log.card.rows_read, log.card.bad_rows, log.card.rows_kept) == (15, 7, 6)
    assert log.card.filters[0].startswith("Left out 7 bad rows: wrong number of fields")


@pytest.mark.parametrize("value", ["x", "", "1.5", "1e3", " 1", "+1", "99999999999999999999"])
def test_ids_that_are_no_whole_numbers(tmp_path: Path, value: str) -> None:
    path = written(tmp_path, "a.csv", [*TAOBAO_ROWS, f"7,{value},5,pv,1511544070", "7,8,9,pv,x"])
    if value in (" 1", "+1"):
        path = written(tmp_path, "a.csv", [*TAOBAO_ROWS, f"7,{value},5,pv,1511544070", "7,x,9,pv,1"])
    with pytest.raises(InputError, match=r"2 of 6 rows .*item is not a whole number \((1|2) rows?: lines? 5"):
        prepare("taobao", path, name="a")
    assert prepare("taobao", path, name="a", on_bad_rows="skip").card.rows_kept == 3
    tmall = written(tmp_path, "t.csv", [TMALL_HEADER, "1,1,1,1,1,511,0", "", "u1,1,1,1,1,511,0"])
    with pytest.raises(InputError, match=r"1 of 2 rows .*user is not a whole number \(1 row: line 4: 'u1'\)"):
        prepare("tmall", tmall, name="b")


def test_table_faults_have_exact_lines(tmp_path: Path) -> None:
    rows = ["user,item,t,note", '1,a,5,"two', 'lines"', "", "1,,6,n", "1,b,soon,n", "1,c,7", "1,d,8,"]
    path = written(tmp_path, "a.csv", rows)
    with pytest.raises(InputError) as error:
        prepare("table", path, name="a", time="t")
    for part in (
        "3 of 5 rows",
        "4 wanted (1 row: line 7 with 3)",
        "no item (1 row: line 5: '')",
        "unreadable time in column 't' (1 row: line 6: 'soon')",
    ):
        assert part in str(error.value)
    log = prepare("table", path, name="a", time="t", on_bad_rows="skip")
    assert (log.card.rows_read, log.card.bad_rows, log.card.items) == (5, 3, 2)


def test_parquet_faults_are_counted_by_row(tmp_path: Path) -> None:
    frame = pl.DataFrame({"user": [1, None, 1], "item": [1.0, 2.0, float("nan")], "time": ["1", "2", "3"]})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"2 of 3 rows .*no user \(1 row: row 2: ''\); no item \(1 row: row 3: nan\)"):
        prepare("table", tmp_path / "a.parquet", name="a", time="time")


def test_an_unclosed_quote_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="wrong number of fields|not closed"):
        prepare("table", written(tmp_path, "a.csv", ["user,item", '1,"a', "1,b,c"]), name="a")
    huge = ["user,item", '1,"a', *["1,b"] * 60_000]
    with pytest.raises(InputError, match="look for a quote that is not closed.*--no-quotes"):
        prepare("table", written(tmp_path, "a.csv", huge), name="a", quotes=True)
    log = prepare("table", written(tmp_path, "a.csv", huge), name="a")  # every line is a row as it stands
    assert (log.card.rows_kept, log.card.found["quotes"]) == (60_001, "part of the text")


def test_nothing_left_to_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing to read, there is no row in it"):
        prepare("table", written(tmp_path, "a.csv", ["user,item"]), name="a")
    with pytest.raises(InputError, match="nothing to read, every row is bad"):
        prepare("taobao", written(tmp_path, "a.csv", ["1,2", "3"]), name="a", on_bad_rows="skip")
    with pytest.raises(InputError, match=r"no row with behaviour 'pv': its values are 'buy' \(1 rows\)"):
        prepare("taobao", written(tmp_path, "a.csv", ["1,2,3,buy,4"]), name="a")
    with pytest.raises(InputError, match="no row with behaviour 0: its values are 2"):
        prepare("tmall", written(tmp_path, "t.csv", [TMALL_HEADER, "1,1,1,1,1,511,2"]), name="a")


def test_names_readers_and_options_are_checked(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", TAOBAO_ROWS)
    for name in ("../a", "", ".a", "a/b", "a" * 101):
        with pytest.raises(InputError, match="cannot name a log"):
            prepare("taobao", path, name=name)
    with pytest.raises(InputError, match="belongs to the reader of that name"):
        prepare("taobao", path, name="complete_journey")
    with pytest.raises(InputError, match="no reader 'yelp': readers are taobao, tmall, complete_journey, table"):
        prepare("yelp", path, name="a")
    with pytest.raises(InputError, match="reader 'taobao' has no option 'time'"):
        prepare("taobao", path, name="a", time="t")
    with pytest.raises(InputError, match="needs the path"):
        prepare("taobao", name="a")


# --- the store ----------------------------------------------------------------------------------------------


def test_load_remove_and_available(tmp_path: Path) -> None:
    path = written(tmp_path, "a.csv", TAOBAO_ROWS)
    prepare("taobao", path, name="mine")
    assert [card.name for card in available()] == ["mine"]
    with pytest.raises(InputError, match=r"no log 'mime' \(nearest: mine\).*there are complete_journey, mine; prepare"):
        load("mime")
    assert find("mime") is None
    path.write_text("1,1,1,pv,1\n")
    assert prepare("taobao", path, name="mine").card.rows_kept == 1  # replaced
    assert load("mine").card.rows_kept == 1
    remove("mine")
    assert available() == []
    with pytest.raises(InputError, match="no log 'mine' to remove"):
        remove("mine")


def test_a_refused_file_leaves_the_stored_log_alone(tmp_path: Path) -> None:
    before = prepare("taobao", written(tmp_path, "a.csv", TAOBAO_ROWS), name="mine")
    with pytest.raises(InputError):
        prepare("taobao", written(tmp_path, "b.csv", ["1"]), name="mine")
    assert_same(before, load("mine"))


def test_a_damaged_log_is_refused(tmp_path: Path, store: Path) -> None:
    prepare("taobao", written(tmp_path, "a.csv", TAOBAO_ROWS), name="mine")
    rows = store / "logs/mine/log.parquet"
    sound = pl.read_parquet(rows)
    damages = [sound.head(2), sound.with_columns(item=pl.lit(1, pl.Int32)), sound.drop("item")]
    for damaged in damages:
        damaged.write_parquet(rows)
        with pytest.raises(InputError, match="'mine' is damaged .*dare data remove mine"):
            load("mine")
    sound.write_parquet(rows)
    load("mine")
    rows.write_bytes(b"x")
    with pytest.raises(InputError, match="is damaged"):
        load("mine")
    sound.write_parquet(rows)
    (store / "logs/mine/card.json").write_text("{}")
    with pytest.raises(InputError, match="is damaged"):
        load("mine")
    with pytest.raises(InputError, match="data card"):
        available()


def test_store_log_for_worlds(store: Path) -> None:
    card = Card(
        name="generated-a", title="a", kind="generated log", source="s", terms="t", sha256="0", rows_read=3,
        rows_kept=3, users=2, items=4, categories=3, filters=[], created_with={},
    )  # fmt: skip
    frame = pl.DataFrame({"user": [1, 1, 2], "item": [4, 1, 4], "category": [3, 1, 3]})
    probability = np.array([0, 0.1, 0.2, 0.3, 0.4])
    log = store_log(card, frame, np.array([0, 1, 2, 2, 3]), probability)
    assert_same(log, load("generated-a"))
    np.testing.assert_array_equal(load("generated-a").item_probability, probability)
    assert log.items.tolist() == [4, 1, 4]  # ids stay as given
    again = store_log(card, frame, np.array([0, 1, 2, 2, 3]), probability)
    assert_same(log, again)
    other = store_log(card.model_copy(update={"name": "b"}), frame, np.array([0, 1, 2, 2, 3]))
    assert other.fingerprint != log.fingerprint
    with pytest.raises(ValueError, match="not those of its card"):
        store_log(card.model_copy(update={"users": 3}), frame, np.array([0, 1, 2, 2, 3]))


def test_most_recent_category_goes_by_time(tmp_path: Path) -> None:
    rows = ["1,5,1,pv,9", "1,6,1,pv,9", "2,5,2,pv,3", "3,5,3,pv,9"]
    log = prepare("taobao", written(tmp_path, "a.csv", rows[:3]), name="a")
    assert log.item_category.tolist() == [0, 1, 1]  # item 5 was last seen by user 1
    log = prepare("taobao", written(tmp_path, "a.csv", rows), name="a")
    assert log.item_category.tolist() == [0, 3, 1]  # at equal times the later row


def test_how_long_users_are(tmp_path: Path) -> None:
    rows = [f"{user},{row},1,pv,{row}" for user, clicks in ((1, 70), (2, 25), (3, 3)) for row in range(clicks)]
    log = prepare("taobao", written(tmp_path, "a.csv", rows), name="a")
    assert lengths(log).tolist() == [70, 25, 3]
    words = "no user of log 'a' has >= 210 clicks: 2 have >= 20, 1 have >= 60, 0 have >= 110, the longest has 70;"
    assert str(shortest_user_error(log, 210)).startswith(words)
    assert "the longest has 70; choose smaller ones, for example -p shortest_user" in str(shortest_user_error(log, 100))


# --- published logs -----------------------------------------------------------------------------------------


def test_complete_journey_is_there_without_preparing() -> None:
    log = load("complete_journey")
    card = log.card
    assert (card.rows_read, card.rows_kept) == (1_469_307, 1_462_262)
    assert (card.users, card.items, card.categories) == (2_469, 68_150, 302)
    assert (lengths(log) >= 210).sum() == 1_696
    assert card.kind == "published log"
    assert "simulated data" in card.provenance[0]
    assert "CC0" in card.provenance[1]
    assert len(np.unique(log.item_category[1:])) == 302
    first = log.fingerprint
    remove("complete_journey")
    assert load("complete_journey").fingerprint == first  # the shuffle is seeded


@pytest.mark.skipif(not TAOBAO_HEAD.exists(), reason="needs ../shared/data/taobao_head/UserBehavior.csv")
@pytest.mark.usefixtures("sound_only")
def test_the_head_of_the_real_taobao_log() -> None:
    log = prepare("taobao", TAOBAO_HEAD, name="head")
    card = log.card
    assert (card.rows_read, card.rows_kept, card.bad_rows) == (84_287, 75_693, 0)
    # 814 users, 55,233 items, 2,911 categories before the filter: two users never clicked
    assert (card.users, card.items, card.categories) == (812, 51_930, 2_819)
    assert [(lengths(log) >= least).sum() for least in (60, 110, 210)] == [455, 245, 78]
    assert any(sentence.startswith("35 of them") for sentence in card.filters)
