"""Reader of any CSV, TSV or Parquet file with named columns."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import polars as pl

from dare_core.data.delimited import (
    KEEP_ALL_FIELDS,
    Layout,
    mend_rows,
    plain_file,
    read_header,
    scan_rows,
    scratch_folder,
)
from dare_core.data.reading import (
    Faults,
    OnBadRows,
    Reading,
    check_values,
    contiguous,
    field_position,
    settle,
)
from dare_core.errors import InputError
from dare_core.files import sha256_of

ISO_FORMATS = ("%Y-%m-%d", "%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f%#z")


def table(
    path: Path,
    on_bad_rows: OnBadRows,
    *,
    user: str = "user",
    item: str = "item",
    category: str | None = None,
    time: str | None = None,
    behaviour: str | None = None,
    keep: Sequence[str] = (),
) -> Reading:
    """Any CSV, TSV or Parquet file: each option names the column of the file that holds it.

    Without `category` every item has category 1; without `time` file order counts; `keep` lists the values of
    `behaviour` that are kept (all when empty). Ids may be text. Times: numbers, ISO dates or datetimes.
    """
    if keep and behaviour is None:
        raise InputError("values to keep are given without the behaviour column they belong to: name that column too.")
    named = {"user": user, "item": item, "category": category, "time": time, "behaviour": behaviour}
    wanted = {column: name for column, name in named.items() if name is not None}
    with plain_file(path) as plain:
        frame, rows_read, faults = _read(plain, path, wanted)
    settle(faults, rows_read, on_bad_rows, path)
    filters = []
    if keep:
        check_values(dict(frame["behaviour"].value_counts().iter_rows()), keep, path)
        frame = frame.filter(pl.col("behaviour").is_in(list(keep)))
        filters.append(f"Kept the {frame.height:,} rows whose '{behaviour}' is {' or '.join(map(repr, keep))}.")
    if category is None:
        filters.append("No category column was named: every item has category 1.")
    filters.append(
        f"Sorted by '{time}' within a user, stable." if time else "Within a user rows keep the file's order."
    )
    frame = contiguous(frame, by_time=time is not None).select(
        "user",
        "item",
        pl.col("category") if category else pl.lit(1).alias("category"),
        pl.col("behaviour") if behaviour else pl.lit(None, dtype=pl.String).alias("behaviour"),
        (pl.col("time").floor() if time else pl.lit(None)).cast(pl.Int64).alias("time"),
    )
    return Reading(
        frame=frame,
        facts={"title": path.name, "kind": "own log", "source": path.name, "terms": "its owner's"},
        rows_read=rows_read,
        sha256=sha256_of(path),
        faults=faults,
        filters=filters,
    )


def _read(plain: Path, path: Path, wanted: dict[str, str]) -> tuple[pl.DataFrame, int, Faults]:
    """Usable rows of the wanted columns, number of rows in the file, rows that cannot be used."""
    with plain.open("rb") as file:
        parquet = file.read(4) == b"PAR1"
    if parquet:
        rows = pl.scan_parquet(plain, glob=False)
        names = rows.collect_schema().names()
        columns = {column: names[field_position(name, names, path)] for column, name in wanted.items()}
        raw = rows.select(**{column: pl.col(name) for column, name in columns.items()}).collect()
        frame, faults = _usable(raw.with_row_index("line", offset=1), Faults("row"))
        return frame, raw.height, faults
    fields, separator = read_header(plain, path)
    positions = {column: field_position(name, fields, path) for column, name in wanted.items()}
    layout = Layout(fields, positions, separator=separator)
    with suppress(pl.exceptions.PolarsError):  # too many fields, an unclosed quote: the slow way says where
        raw = scan_rows(plain, layout).collect(optimizations=KEEP_ALL_FIELDS)
        frame, faults = _usable(raw, Faults())
        if raw["complete"].all() and not faults.counts:
            return frame, raw.height, faults
    faults = Faults()  # from here on with exact line numbers, also after blank lines and quoted line breaks
    with scratch_folder() as folder:
        raw = mend_rows(plain, layout, faults, folder / "rows.csv", path).collect(optimizations=KEEP_ALL_FIELDS)
    rows_read = raw.height + faults.counts.total()
    frame, faults = _usable(raw, faults)
    return frame, rows_read, faults


def _usable(frame: pl.DataFrame, faults: Faults) -> tuple[pl.DataFrame, Faults]:
    """Rows with all their ids and a readable time (then a number); the others go into `faults`."""
    if "behaviour" in frame.columns:
        frame = frame.with_columns(pl.col("behaviour").cast(pl.String))
    for column in ("user", "item", "category", "time"):
        if column not in frame.columns:
            continue
        if column == "time":
            frame = frame.with_columns(time=read_times(frame["time"]))
        missing = frame[column].is_null()
        if frame[column].dtype == pl.String:
            missing |= frame[column] == ""
        if frame[column].dtype.is_float():
            missing |= frame[column].is_nan()
        if missing.any():
            bad = frame.filter(missing)["line"]
            faults.add("unreadable time" if column == "time" else f"no {column}", bad.head(5).to_list(), bad.len())
            frame = frame.filter(~missing)
    return frame, faults


def read_times(times: pl.Series) -> pl.Series:
    """Numbers as they are, dates as seconds since 1970 (UTC where no zone is given), null where unreadable.

    A column of text is read as the one kind (whole numbers, numbers, ISO dates) that fits most of its rows.
    """
    if times.dtype == pl.Date:
        times = times.cast(pl.Datetime("us"))
    if isinstance(times.dtype, pl.Datetime):
        return times.dt.epoch("us") / 1e6
    if times.dtype.is_integer():
        return times.cast(pl.Int64, strict=False)
    if times.dtype.is_numeric():
        numbers = times.cast(pl.Float64)
        return numbers.set(~(numbers.abs() < 2.0**63), None)  # not a number, infinite, beyond Int64
    text = times.cast(pl.String, strict=False).str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    kinds = [text.cast(pl.Int64, strict=False), read_times(numbers), _dates(text)]
    return min(kinds, key=pl.Series.null_count)


def _dates(text: pl.Series) -> pl.Series:
    """ISO dates and datetimes as seconds since 1970, null where the text is neither."""
    plain = text.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "$1 ").str.replace(r"[Zz]$", "+00:00").to_frame("text")
    parsed = [pl.col("text").str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us") for form in ISO_FORMATS]
    return plain.select(pl.coalesce(parsed) / 1e6).to_series()
