"""The reader `table`: any table of text, JSON lines or Parquet."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from pydantic import Field

from dare_core.data.delimited import Faults, cut, json_rows, text_rows
from dare_core.data.intake import checks
from dare_core.data.intake.forms import file_kind, find_form, positions
from dare_core.data.intake.rows import (
    OnBadRows,
    PeriodOptions,
    Reading,
    check_values,
    number,
    numbered,
    plain_types,
    settle,
    within_period,
)
from dare_core.data.intake.sources import Source, opened, scratch_folder, sha256_of_all
from dare_core.data.intake.times import Times, read_times
from dare_core.errors import InputError

IDS = ("user", "item", "category")
KEPT = ("user", "item", "category", "behaviour", "time")
TEXT_OPTIONS = ("columns", "separator", "quotes", "encoding")
COLUMNS = ("user", "item", "category", "time", "behaviour", "label", "group")


class TableOptions(PeriodOptions):
    """Options of `table`; the first ones name the column of the file that holds each."""

    user: str = "user"
    item: str = "item"
    category: str | None = None  # None: every item has category 1
    time: str | None = None  # None: the file's order counts
    behaviour: str | None = None
    label: str | None = None  # whether an impression was clicked: clicks make the log, the others what was shown
    group: str | None = None  # of an item, for example its city
    keep: tuple[str, ...] = ()  # values of `behaviour` that are kept; all where it is empty
    columns: tuple[str, ...] = ()  # names of the fields of a file without a header
    separator: str | None = None  # None: found, as `quotes` and `encoding` are
    quotes: bool | None = None
    encoding: str | None = None
    time_form: str | None = None
    ties: Literal["shuffle", "file"] = "shuffle"
    copies: Literal["keep", "drop"] = "keep"
    ids: Literal["keep", "tidy"] = "keep"
    leave_out_users: tuple[str, ...] = ()
    longest_user: int | None = Field(None, ge=1)

    def check(self) -> None:
        """Refuse options without the column that they are about."""
        for given, what, column in (
            (self.keep, "values to keep are", "behaviour"),
            (self.time_form, "the form of times is", "time"),
            (self.copies == "drop", "copies to drop are", "time"),
        ):
            if given and getattr(self, column) is None:
                raise InputError(f"{what} given without the {column} column they belong to: name that column too.")

    def wanted(self) -> dict[str, str]:
        """Column of the log -> its name in the file."""
        return {column: name for column in COLUMNS if (name := getattr(self, column)) is not None}


def table(paths: Sequence[Path], on_bad_rows: OnBadRows, options: TableOptions) -> Reading:
    """Any table of text, JSON lines or Parquet: one file or several with the same columns, a folder, standard input.

    Ids may be text. An item's most frequent category counts for all its rows, of equally frequent ones the latest.
    Rows of a user with equal times are shuffled with a fixed seed.
    """
    options.check()
    with opened(paths) as sources, scratch_folder() as folder:
        rows = _read_all(sources, folder, options)
        sha256 = sha256_of_all(paths, sources)
    name = sources[0].name if len(sources) == 1 else f"{sources[0].name} and {len(sources) - 1} more"
    filters = rows.keep(options, name)
    times = rows.check(options, name)
    settle(rows.faults, rows.rows_read, on_bad_rows, name)
    frame, narrowed = _narrowed(rows.frame, times, options)
    arranged, found, said = _arranged(frame, times, options)
    shown, rest = _numbered(arranged, times, options)
    return Reading(
        **shown,
        facts={"title": Path(name).name, "kind": "own log", "source": Path(name).name, "terms": "its owner's"},
        rows_read=rows.rows_read,
        sha256=sha256,
        faults=rows.faults,
        filters=[*filters, *narrowed, *said, *rest],
        found=rows.found | ({"times": times.form} if times else {}),
        checks=found,
    )


@dataclass
class _Rows:
    """Rows as text or as Parquet has them, with the columns of the log, `line`, and `file` where there are several."""

    frame: pl.DataFrame
    rows_read: int
    faults: Faults
    found: dict[str, Any] = field(default_factory=dict)

    def keep(self, options: TableOptions, name: str) -> list[str]:
        """Leave out rows with other behaviours than those to keep."""
        if "behaviour" in self.frame.columns:
            self.frame = self.frame.with_columns(pl.col("behaviour").cast(pl.String))
        if not options.keep:
            return []
        check_values(dict(self.frame["behaviour"].value_counts().iter_rows()), options.keep, name)
        self.frame = self.frame.filter(pl.col("behaviour").is_in(list(options.keep)))
        kept = " or ".join(map(cut, options.keep))
        return [f"Kept the {self.frame.height:,} rows whose '{options.behaviour}' is {kept}."]

    def check(self, options: TableOptions, name: str) -> Times | None:
        """Leave out rows without an id, a label or a readable time; labels and times become what they mean."""
        for column in IDS:
            if column in self.frame.columns:
                self._without(checks.missing(self.frame[column]), f"no {column}", column)
        if "label" in self.frame.columns:
            labels = checks.labels(self.frame["label"])
            self._without(labels.is_null(), "label is neither 1 nor 0", "label")
            self.frame = self.frame.with_columns(label=labels.drop_nulls())
        if "time" not in self.frame.columns:
            return None
        try:
            times = read_times(self.frame["time"], options.time_form, self._place)
        except InputError as e:
            raise InputError(f"'{name}': {e}") from e
        key = times.key.is_null()
        self._without(key, f"unreadable time in column '{cut(options.time, False)}'", "time")
        self.frame = self.frame.with_columns(time=times.key.filter(~key))
        return times

    def _without(self, bad: pl.Series, reason: str, column: str) -> None:
        self.frame = checks.without(self.frame, bad, reason, column, self.faults)

    def _place(self, row: int) -> str:
        line = f"{self.faults.unit} {self.frame['line'][row]}"
        return f"{line} of {self.frame['file'][row]}" if "file" in self.frame.columns else line


def _read_all(sources: Sequence[Source], folder: Path, options: TableOptions) -> _Rows:
    """The rows of all files, and what was found about their form."""
    several, kinds = len(sources) > 1, {file_kind(source) for source in sources}
    faults, frames = Faults("row" if kinds == {"parquet"} else "line"), []
    found: dict[str, Any] = {"files": len(sources)} if several else {}
    for source in sources:
        faults.file = source.name if several else ""
        frame, said = _read_one(source, folder, options, faults)
        frames.append(frame.with_columns(file=pl.lit(source.name, pl.Categorical)) if several else frame)
        found |= {"packing": source.packing} | said
    faults.file = ""
    for column in frames[0].columns:
        types = {frame[column].dtype for frame in frames}
        if len(types) > 1 and not all(kind.is_numeric() for kind in types):
            frames = [frame.with_columns(pl.col(column).cast(pl.String)) for frame in frames]
    frame = pl.concat(frames, how="vertical_relaxed")
    return _Rows(frame, frame.height + faults.counts.total(), faults, found)


def _read_one(
    source: Source, folder: Path, options: TableOptions, faults: Faults
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The rows of one file with the right number of fields, and its form in words."""
    wanted, kind = options.wanted(), file_kind(source)
    for option in TEXT_OPTIONS:
        if kind != "text" and getattr(options, option) not in (None, ()):
            what = "Parquet" if kind == "parquet" else "JSON lines"
            raise InputError(f"'{source.name}' is {what}: --{option} is for tables of text, leave it out.")
    if kind == "parquet":
        rows = pl.scan_parquet(source.plain, glob=False)
        names = rows.collect_schema().names()
        at = positions(wanted, names, source.name, header=False)
        raw = rows.select(**{column: pl.col(names[place]) for column, place in at.items()}).collect()
        return plain_types(raw, wanted, source.name).with_row_index("line", offset=1), {"form": "Parquet"}
    if kind == "json":
        return json_rows(source.plain, wanted, faults, source.name), {"form": "JSON lines"}
    text = find_form(
        source, folder, encoding=options.encoding, separator=options.separator, columns=options.columns,
        quotes=options.quotes, wanted=wanted.values(),
    )  # fmt: skip
    layout = text.layout.reading(positions(wanted, text.layout.fields, source.name, header=not options.columns))
    raw = text_rows(text.plain, layout, faults, source.name, sound=text.quotes != "unclear")
    repeated = raw.select(pl.all_horizontal(pl.col(column) == name for column, name in wanted.items())).to_series()
    raw = checks.without(raw, repeated.fill_null(False), "a row equal to the header", "user", faults)
    quotes = {"fields": "around fields", "none": "part of the text", "unclear": "around some fields"}[text.quotes]
    return raw, {
        "form": "text", "encoding": text.encoding, "separator": text.separator,
        "quotes": quotes if text.has_quotes else "none",
        "header": "named by --columns" if options.columns else f"line {layout.skip}",
    }  # fmt: skip


def _narrowed(frame: pl.DataFrame, times: Times | None, options: TableOptions) -> tuple[pl.DataFrame, list[str]]:
    """The rows that options leave, with ids tidied where they are to be."""
    said = []
    if options.ids == "tidy":
        ids = [column for column in IDS if column in frame.columns]
        joined = {getattr(options, column): checks.untidy(frame[column].unique()) for column in ids}
        frame = frame.with_columns(checks.tidy(frame[column]) for column in ids)
        words = ", ".join(f"{more:,} of column '{name}'" for name, more in joined.items() if more)
        said.append(f"Joined ids that differ only in blanks or .0: {words or 'none'}.")
    frame, left_out = checks.leave_out_users(frame, options.leave_out_users, options.longest_user)
    if frame.is_empty():
        raise InputError("no row is left after leaving out users: give a larger --longest-user or fewer users.")
    frame, period = within_period(frame, times, options)
    return frame, [*said, *left_out, *period]


def _arranged(
    frame: pl.DataFrame, times: Times | None, options: TableOptions
) -> tuple[pl.DataFrame, dict[str, Any], list[str]]:
    """Rows by user and time, with one category per item; what the card says of them."""
    ids = {column: numbered(frame[column]) for column in IDS if column in frame.columns}
    near = {column: more for column, (_, names) in ids.items() if (more := checks.untidy(names))}
    found: dict[str, Any] = {"largest user": checks.largest_user(*ids["user"])}
    cut_off = {column: more for column, (_, names) in ids.items() if (more := checks.in_powers_of_ten(names))}
    if cut_off:
        found["ids as powers of ten, as a spreadsheet cuts them"] = cut_off
    if near:
        found["ids that differ only in blanks or .0"] = near
    frame = frame.with_columns(**{column: numbers for column, (numbers, _) in ids.items()})
    said = [] if options.category else ["No category column was named: every item has category 1."]
    if times is None:
        frame = frame.sort("user", maintain_order=True)
        said.append("Within a user rows keep the file's order.")
    else:
        frame, order = checks.ordered(frame, options.ties == "shuffle", options.copies == "drop")
        found |= order | checks.span(times, frame["time"])
        said.append(f"Sorted by '{options.time}' within a user.")
        if order["exact copies"] and options.copies == "drop":
            said.append(f"Left out {order['exact copies']:,} exact copies of rows.")
        if order["rows of a user with equal times"]:
            how = "shuffled (seed 0)" if options.ties == "shuffle" else "in the file's order"
            said.append(f"Rows of a user with equal times are {how}.")
    if options.category:
        frame, items, rows = checks.one_category(frame)
        found["items with several categories"] = items
        if items:
            said.append(
                f"{items:,} items have several categories: the most frequent one of an item, of equally frequent ones "
                f"the latest, counts for all its rows (changed in {rows:,})."
            )
    return frame, found, said


def _numbered(frame: pl.DataFrame, times: Times | None, options: TableOptions) -> tuple[dict[str, Any], list[str]]:
    """The parts of a `Reading` that hold rows: clicks, what was shown with them, and the table of items."""
    said: list[str] = []
    category = frame["category"] if options.category else pl.repeat(1, frame.height, dtype=pl.Int32, eager=True)
    frame = frame.with_columns(
        category=category,
        behaviour=pl.col("behaviour") if options.behaviour else pl.lit(None, dtype=pl.String),
        time=(pl.col("time") // times.per_second if times else pl.lit(None)).cast(pl.Int64),
    )
    log, shown = frame, None
    if options.label:
        clicked = frame["label"]
        rows = checks.shown_rows(frame["user"].to_numpy(), frame["item"].to_numpy(), clicked.to_numpy())
        log = frame.filter(clicked)
        if log.is_empty():
            raise InputError(
                f"no row has a click in column '{options.label}': its clicks are {', '.join(checks.CLICKS)}."
            )
        shown = pl.Series(np.append(frame["item"].to_numpy(), np.int32(0))[rows.ravel()])
        said.append(
            f"The {log.height:,} rows that '{options.label}' marks as clicks are the log; of the other "
            f"{frame.height - log.height:,}, up to {rows.shape[1]} shown nearest to each click are stored beside it."
        )
    every = pl.concat([log["item"], *([] if shown is None else [shown.filter(shown > 0)])])
    ids = number(every)
    reading: dict[str, Any] = {"frame": log.with_columns(item=ids.head(log.height)).select(*KEPT)}
    if shown is not None:
        codes = np.zeros(len(shown), np.int32)
        codes[(shown > 0).to_numpy()] = ids[log.height :].to_numpy()
        reading["shown"] = codes.reshape(log.height, -1)
    if options.category is None and shown is None and options.group is None:
        return reading, said
    known = pl.DataFrame({"old": every, "item": ids}).unique("item", maintain_order=True)
    first = frame.unique("item", maintain_order=True).select(old="item", category="category")
    categories = known.join(first, on="old", how="left", maintain_order="left")["category"]
    numbers = number(pl.concat([log["category"], categories]))
    reading["frame"] = reading["frame"].with_columns(category=numbers.head(log.height))
    reading["item_category"] = np.append(0, numbers[log.height :].to_numpy()).astype(np.int32)
    if options.group:
        groups = checks.most_frequent(frame.with_columns(pl.col("group").cast(pl.String).fill_null("")), "group")
        of_item = known.join(groups, left_on="old", right_on="item", how="left", maintain_order="left")["group"]
        reading["item_group"] = np.append(0, number(of_item).to_numpy()).astype(np.int32)
        said.append(f"Items are in {of_item.n_unique():,} groups by '{options.group}', each in its most frequent one.")
    return reading, said
