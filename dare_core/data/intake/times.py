"""Times of rows: the form in which a file writes them is found, or told by `time_form`."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import cast

import polars as pl

from dare_core.data.delimited import cut
from dare_core.errors import InputError

MICROSECONDS = 1_000_000
UNITS = {
    "seconds": (10**8, 10**11, 1),
    "milliseconds": (10**11, 10**14, 1_000),
    "microseconds": (10**14, 10**17, MICROSECONDS),
    "nanoseconds": (10**17, 2**63 - 1, 1_000 * MICROSECONDS),
}
"""Numbers of each unit between 1973 and 5138 (nanoseconds: 2262), and how many are a second."""
FORMS = "day-first, month-first, seconds, milliseconds, microseconds, nanoseconds, or a pattern as '%d.%m.%Y %H:%M'"
READABLE = (
    "times can be whole numbers (in seconds to nanoseconds since 1970, or of the log's own), 2024-01-31, "
    "2024-01-31 10:15:00 with or without a zone, 31/01/2024 10:15, 31.01.2024, 01/31/2024 3:15 PM, 31 Jan 2024; "
    "others with --time-form '%d.%m.%Y %H:%M'"
)
EPOCH = datetime(1970, 1, 1)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ISO = ("%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
DIGITS = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}
PARTS = (
    r"^(\d{1,4})[-/.](\d{1,2})[-/.](\d{1,4})"  # 1 to 3: the date
    r"(?:(?:[Tt,_:]\s*|\s+)(\d{1,2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?\s*(?i:([ap])\.?m\.?)?)?"  # 4 to 8
    r"\s*(?:([-+])(\d{2}):?(\d{2})?)?$"  # 9 to 11: the zone
)


@dataclass(frozen=True)
class Times:
    """Times of rows as numbers by which they are sorted."""

    key: pl.Series  # Int64 or Float64; null where unreadable
    form: str  # in words
    per_second: int = 1
    dated: bool = False  # they say when, not only in which order


def read_times(times: pl.Series, form: str | None = None, place: Callable[[int], str] = str) -> Times:
    """Times of a column of dates, numbers or text, which is read as the one form that fits most of its rows.

    Without a zone they are taken as UTC. `place` names a row in messages. Raises InputError where dates can be read
    in two ways, or where the unit of numbers changes.
    """
    if times.dtype == pl.Date:
        times = times.cast(pl.Datetime("us"))
    if isinstance(times.dtype, pl.Datetime):
        zone = f"with zone {times.dtype.time_zone}" if times.dtype.time_zone else "without zone, read as UTC"
        return Times(times.dt.epoch("us"), f"dates {zone}", MICROSECONDS, True)
    if form is not None and "%" in form:
        return _by_pattern(_text(times), form)
    if form is not None and form not in ("day-first", "month-first", *UNITS):
        raise InputError(f"there is no form of times '{cut(form, False)}': choose {FORMS}.")
    if times.dtype.is_integer():
        return _whole(times.cast(pl.Int64, strict=False), form, place)
    if times.dtype.is_numeric():
        return _decimal(times.cast(pl.Float64), form, place)
    whole = times.cast(pl.Int64, strict=False)
    if not whole.null_count() and form not in ("day-first", "month-first"):
        return _whole(whole, form, place)
    text = _text(times)
    whole, decimal = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
    numbers = whole.null_count() <= decimal.null_count()
    filled = int((text.fill_null("") != "").sum())
    most = len(text) - min(whole.null_count(), decimal.null_count()) > filled // 2
    if (most or form in UNITS) and form not in ("day-first", "month-first"):
        return _whole(whole, form, place) if numbers else _decimal(decimal, form, place)
    return _dates(text, form)


def _text(times: pl.Series) -> pl.Series:
    return times.cast(pl.String, strict=False).str.replace(r"([Zz\d])\[[^\]]*\]$", "$1").str.strip_chars(" \t\r\n\"'[]")


def _by_pattern(text: pl.Series, form: str) -> Times:
    try:
        zoned = "%z" in form
        parsed = text.str.to_datetime(form, strict=False, time_unit="us", time_zone="UTC" if zoned else None)
        if parsed.null_count() == len(parsed) and not zoned:  # a date alone
            parsed = text.str.to_date(form, strict=False).cast(pl.Datetime("us"))
    except pl.exceptions.PolarsError as e:
        raise InputError(f"--time-form '{cut(form, False)}' is no pattern of a date ({str(e).splitlines()[0]}).") from e
    return Times(parsed.dt.epoch("us"), f"dates as {form}", MICROSECONDS, True)


def _whole(numbers: pl.Series, form: str | None, place: Callable[[int], str]) -> Times:
    """Whole numbers: dates written as digits, or a number of units since 1970, or the log's own numbers."""
    if form is None:
        for digits, pattern in DIGITS.items():
            low, high = 19 * 10 ** (digits - 2), 21 * 10 ** (digits - 2)
            if not numbers.is_between(low, high).any() or numbers.is_between(low, high).not_().any():
                continue
            dates = numbers.cast(pl.String).str.to_datetime(pattern, strict=False, time_unit="us")
            if digits == 8:
                dates = numbers.cast(pl.String).str.to_date(pattern, strict=False).cast(pl.Datetime("us"))
            if dates.null_count() == numbers.null_count():
                return Times(dates.dt.epoch("us"), f"dates written as {digits} digits", MICROSECONDS, True)
    unit = form if form is not None else _unit(numbers, place)
    if unit is None:
        return Times(numbers, "whole numbers of the log's own")
    return Times(numbers, f"whole numbers: {unit} since 1970", UNITS[unit][2], True)


def _decimal(numbers: pl.Series, form: str | None, place: Callable[[int], str]) -> Times:
    """Decimal numbers; what is not finite or beyond 64 bits cannot be read."""
    numbers = numbers.set(~(numbers.abs() < 2.0**63), None)
    unit = form if form is not None else _unit(numbers, place)
    if unit is None:
        return Times(numbers, "numbers of the log's own")
    return Times(numbers, f"numbers: {unit} since 1970", UNITS[unit][2], True)


def _unit(numbers: pl.Series, place: Callable[[int], str]) -> str | None:
    """The unit of most numbers by their size, None where they are too small for one.

    Raises InputError where others are of another unit: a thousand times as large or small, with a gap between.
    """
    size = numbers.abs()
    within = {unit: size.is_between(low, high, closed="left") for unit, (low, high, _) in UNITS.items()}
    counts = {unit: int(rows.sum()) for unit, rows in within.items() if rows.any()}
    if not counts:
        return None
    main = max(counts, key=lambda unit: counts[unit])
    units = list(counts)
    for smaller, larger in zip(units, units[1:], strict=False):
        low, high = size.filter(within[smaller]).max(), size.filter(within[larger]).min()
        if cast(float, high) < 50 * cast(float, low):
            return None  # no gap: numbers of a wide range
        first, second = (within[unit].arg_max() or 0 for unit in (smaller, larger))
        if first > second:
            first, second, smaller, larger = second, first, larger, smaller
        raise InputError(
            f"the unit of times changes: {place(second)} has {cut(numbers[second])} ({larger}), "
            f"after {cut(numbers[first])} in {place(first)} ({smaller}): write all of them in one unit."
        )
    known = counts[main]
    return main if known > len(numbers.drop_nulls()) // 2 else None


# --- dates as text ------------------------------------------------------------------------------------------


def _dates(text: pl.Series, form: str | None) -> Times:
    """Dates with or without a time of day and a zone."""
    plain = text.str.replace(r"^(\d{4}-\d{2}-\d{2})[Tt]", "$1 ").str.replace(r"(?i)(\d) ?(?:z|utc|gmt)$", "$1+00:00")
    parsed = plain.to_frame("text").select(
        pl.coalesce(pl.col("text").str.to_datetime(f, strict=False, time_unit="us").dt.epoch("us") for f in ISO)
    )
    key, order = parsed.to_series(), ""
    if key.null_count() > text.null_count():
        parts = (
            _written_in_digits(plain).to_frame("text").select(pl.col("text").str.extract_groups(PARTS)).unnest("text")
        )
        order = _order(parts, plain, form)
        key = key.zip_with(key.is_not_null(), _from_parts(parts, order))
    zoned = int(plain.filter(key.is_not_null()).str.contains(r":\d\d.*[-+]\d\d").sum())
    zone = "with zone" if zoned and zoned == len(key) - key.null_count() else "no zone given: read as UTC"
    zone = "some with a zone, the others read as UTC" if zoned and zone != "with zone" else zone
    return Times(key, f"dates{order and f', {order}'}, {zone}", MICROSECONDS, True)


def _written_in_digits(text: pl.Series) -> pl.Series:
    """Dates with names of months, weekdays or East Asian signs as dates of digits, year first where it has four."""
    text = text.str.replace(r"(\d{4})年(\d{1,2})月(\d{1,2})日\s*", "$1-$2-$3 ").str.strip_chars()
    if not text.str.contains(r"(?i)[a-z]{3}").any():
        return text
    text = text.str.replace(r"(?i)^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*[.,]?\s+", "")
    for pattern, digits in (
        (r"^(\d{1,2})[-\s/.]*([A-Za-z]{3})[a-z]*[-\s/.,]*(\d{4}|\d{2})\b", "$3-$2-$1"),
        (r"^([A-Za-z]{3})[a-z]*\.?\s+(\d{1,2})(?:st|nd|rd|th)?,?\s+(\d{4})\b", "$3-$1-$2"),
        (
            r"^([A-Za-z]{3})[a-z]*\s+(\d{1,2})\s+(\d{1,2}:[\d:.]+)\s*([-+]\d{4})?(?:[A-Z]{3,4})?\s*(\d{4})$",
            "$5-$1-$2 $3$4",
        ),
    ):
        text = text.str.replace(pattern, digits)
    text = text.str.replace(r"^(\d{2})-([A-Za-z]{3})-", "20$1-$2-")
    for number, month in enumerate(MONTHS, 1):
        text = text.str.replace(rf"(?i)-{month}[a-z]*-", f"-{number:02}-")
    return text


def _order(parts: pl.DataFrame, text: pl.Series, form: str | None) -> str:
    """Whether day or month comes first in dates that do not begin with the year; nothing where all do."""
    first, second, year = (parts[:, at].cast(pl.Int64, strict=False) for at in range(3))
    short = (parts[:, 0].str.len_chars() <= 2) & year.is_not_null()
    if not short.any():
        return ""
    if form in ("day-first", "month-first"):
        return form.replace("-", " ")
    days, months = int((short & (first > 12)).sum()), int((short & (second > 12)).sum())
    if days == months == 0:
        at = short.arg_max() or 0
        low, high = first[at], second[at]
        raise InputError(
            f"times can be read in two ways: {cut(text[at])} is {low} {MONTHS[(high or 1) - 1].title()} (day first) or "
            f"{high} {MONTHS[(low or 1) - 1].title()} (month first), and no row says which: "
            "give --time-form day-first or --time-form month-first."
        )
    return "day first" if days >= months else "month first"


def _from_parts(parts: pl.DataFrame, order: str) -> pl.Series:
    """Microseconds since 1970 of the groups of `PARTS`."""
    a, b, c = (pl.nth(at) for at in range(3))
    year_first = a.str.len_chars() == 4
    century = pl.when(c.cast(pl.Int64) < 70).then(pl.lit("20")).otherwise(pl.lit("19"))
    last = pl.when(c.str.len_chars() == 2).then(pl.concat_str(century, c)).when(c.str.len_chars() == 4).then(c)
    year = pl.when(year_first).then(a).otherwise(last)
    day, month = (a, b) if order == "day first" else (b, a)
    month, day = pl.when(year_first).then(b).otherwise(month), pl.when(year_first).then(c).otherwise(day)
    date = pl.concat_str(year, pl.lit("-"), month.str.zfill(2), pl.lit("-"), day.str.zfill(2))
    hour, minute, second = (pl.nth(at).cast(pl.Int64).fill_null(0) for at in (3, 4, 5))
    half = pl.nth(7).str.to_lowercase()
    hour = pl.when(half.is_null()).then(hour).otherwise(hour % 12 + pl.when(half == "p").then(12).otherwise(0))
    fraction = pl.nth(6).fill_null("").str.pad_end(6, "0").str.head(6).cast(pl.Int64)
    offset = pl.nth(9).cast(pl.Int64).fill_null(0) * 60 + pl.nth(10).cast(pl.Int64).fill_null(0)
    offset = pl.when(pl.nth(8) == "-").then(-offset).otherwise(offset)
    of_day = ((hour * 60 + minute - offset) * 60 + second) * MICROSECONDS + fraction
    sound = (hour < 24) & (minute < 60) & (second < 61)
    key = pl.when(sound).then(
        date.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64) * 86_400 * MICROSECONDS + of_day
    )
    return parts.select(key).to_series()


# --- single moments -----------------------------------------------------------------------------------------


def moment(text: str, times: Times, option: str) -> float:
    """The key of a moment that an option gives, as a date or as a number in the unit of the log."""
    if re.fullmatch(r"[-+]?\d+(\.\d+)?", text.strip()) and not times.dated:
        return float(text)
    found = read_times(pl.Series([text], dtype=pl.String))
    if not (times.dated and found.dated) or found.key[0] is None:
        wanted = "a date such as 2024-01-31 or 2024-01-31T10:00" if times.dated else "a number, as the log's times are"
        raise InputError(f"{option} {cut(text)} cannot be used: give {wanted}.")
    return cast(float, found.key[0]) / found.per_second * times.per_second


def as_text(key: float | None, times: Times) -> str | float | None:
    """A time as a card shows it: a date where times are dated."""
    if key is None or not times.dated:
        return key
    try:
        return f"{EPOCH + timedelta(seconds=key // times.per_second):%Y-%m-%d %H:%M:%S}"
    except OverflowError:  # no date of this calendar
        return key
