"""The form of a text file: encoding, separator, header and quotes, found from its content or told by options."""

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from encodings import normalize_encoding
from encodings.aliases import aliases
from pathlib import Path
from typing import Literal

import polars as pl

from dare_core.data.delimited import Layout, cut
from dare_core.data.intake.sources import HEAD, Source
from dare_core.errors import InputError

Quotes = Literal["fields", "none", "unclear"]
SEPARATORS = {",": "comma", "\t": "tab", ";": "semicolon", "|": "|", "::": "::", "\x01": "\\x01", " ": "space"}
WORDS = {"tab": "\t", "\\t": "\t", "comma": ",", "semicolon": ";", "pipe": "|", "space": " ", "\\x01": "\x01"}
STAND_IN = "\x1f"
"""Separators of several characters are replaced by this one, because readers split at a single character."""
BLOCK = 1 << 20
NO_TEXT = ("base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "rot_13", "uu_codec", "zlib_codec", "mbcs")
NUMBER = re.compile(r"[-+]?\d[\d.,:/ T-]*Z?")


@dataclass(frozen=True)
class Text:
    """What was found about a text file: its rewritten copy where readers need one, and how to read it."""

    plain: Path
    layout: Layout  # without the positions of columns
    has_quotes: bool
    quotes: Quotes
    encoding: str
    separator: str


def file_kind(source: Source) -> Literal["parquet", "json", "text"]:
    """The kind of a file, by its first bytes. Raises InputError for JSON that is not one object per line."""
    head = source.head()
    if head.startswith(b"PAR1"):
        return "parquet"
    start = head.removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith(b"["):
        rest = start[1:].lstrip()
        if rest.startswith((b"{", b"[", b"]")):
            raise InputError(
                f"'{source.name}' is one JSON array: write its objects one per line (JSON lines), as CSV or as Parquet."
            )
    if start.startswith(b"{"):
        try:
            json.loads(start.splitlines()[0])
        except (ValueError, RecursionError) as e:
            if len(start.splitlines()) > 1:
                raise InputError(
                    f"'{source.name}' is JSON over several lines: write one object per line (JSON lines), or CSV."
                ) from e
        return "json"
    return "text"


def find_form(
    source: Source,
    folder: Path,
    *,
    encoding: str | None,
    separator: str | None,
    columns: Sequence[str],
    quotes: bool | None,
    wanted: Collection[str] = (),
) -> Text:
    """The form of a text file; options that are given count, the others are found.

    `columns` names the fields of a file without a header; `wanted` are names that a header should have. Raises
    InputError where the file is no text.
    """
    known = _find_encoding(source, encoding)
    given = WORDS.get(separator.lower(), separator) if separator else None
    lines = _first_lines(source, known)
    skip = _blank(lines)
    if told := re.fullmatch(r"sep=(.+)", "".join(lines[skip : skip + 1])):  # a hint that Excel writes
        given, skip = given or told[1], skip + 1 + _blank(lines[skip + 1 :])
    if not columns:
        skip += _title_lines(lines[skip:], wanted)
    if skip == len(lines):
        raise InputError(f"'{source.name}' has no line with content at its beginning: check that it is the right file.")
    used = given or _find_separator([line for line in lines[skip:] if line.strip()])
    plain = source.plain
    lone_returns = b"\r" in (head := source.head()) and b"\n" not in head
    if known.codec != "utf-8-sig" or len(used) > 1 or lone_returns:
        plain = _rewritten(source, folder, known.codec, used)
    has_quotes = _has_quotes(plain)
    one = STAND_IN if len(used) > 1 else used
    fields, after = _first_row(source, lines[skip:], used, quotes is not False)
    if columns:
        if len(columns) != len(fields):
            raise InputError(
                f"'{source.name}' has {len(fields)} fields in its first row ({_listed(fields)}), and --columns names "
                f"{len(columns)}: name all of them, in order."
            )
        fields, after = tuple(columns), 0
    layout = Layout(fields, {}, separator=one, skip=skip + after, quoting=quotes is not False)
    found: Quotes = "none" if quotes is False or not has_quotes else _find_quotes(plain, layout)
    if quotes and found == "none":
        found = "unclear"
    layout = replace(layout, quoting=found != "none" or not has_quotes, joined=bool(quotes))
    return Text(plain, layout, has_quotes, found if has_quotes else "none", known.name, SEPARATORS.get(used, cut(used)))


@dataclass(frozen=True)
class _Encoding:
    codec: str
    name: str


def _has_quotes(plain: Path) -> bool:
    with plain.open("rb") as file:
        return any(b'"' in block for block in iter(lambda: file.read(BLOCK), b""))


def _find_encoding(source: Source, told: str | None) -> _Encoding:
    """The encoding of a file, from all its bytes.

    What is neither UTF-8 nor UTF-16 is read as Latin-1, in which every byte is a character: ids stay different.
    """
    head = source.head()
    if told:
        name = normalize_encoding(told).lower()  # looked up by name: packages may take any name for their own
        if name not in {*aliases, *aliases.values()} or aliases.get(name, name) in NO_TEXT:
            raise InputError(f"there is no encoding '{told}': for example utf-8, utf-16, latin-1, cp1251, gbk.")
        return _Encoding("utf-8-sig" if aliases.get(name, name) == "utf_8" else name, told)
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return _Encoding("utf-32", "UTF-32")
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return _Encoding("utf-16", "UTF-16")
    zeros = head.count(0)
    if zeros > len(head) // 4:
        for start, codec in ((1, "utf-16-le"), (0, "utf-16-be")):
            if head[start::2].count(0) > 0.9 * zeros:
                return _Encoding(codec, "UTF-16")
    control = len(re.findall(rb"[\x00-\x08\x0e-\x1a\x1c-\x1e]", head.replace(b"\x01", b"")))
    if zeros or control > len(head) // 20:
        raise InputError(
            f"'{source.name}' is not a readable text file (it begins with {cut(head[:20])}): export it as UTF-8 CSV."
        )
    decoder, utf8 = codecs.getincrementaldecoder("utf-8")(), True
    with source.plain.open("rb") as file:
        try:
            for block in iter(lambda: file.read(BLOCK), b""):
                if decoder.getstate()[0] or not block.isascii():
                    decoder.decode(block)
        except UnicodeDecodeError:
            utf8 = False
    if utf8 and not decoder.getstate()[0]:
        marked = head.startswith(codecs.BOM_UTF8)
        return _Encoding("utf-8-sig", "UTF-8 with a byte order mark" if marked else "UTF-8")
    return _Encoding("latin-1", "not UTF-8: every byte is read as a Latin-1 character (or give --encoding)")


def _first_lines(source: Source, encoding: _Encoding) -> list[str]:
    """The lines at the beginning of a file, without one that is cut off there."""
    head = source.head()
    text = head.decode(encoding.codec, errors="replace").removeprefix("\ufeff")
    lines = re.split(r"\r\n|\n|\r", text)
    return lines[:-1] if len(lines) > 1 and (len(head) == HEAD or not lines[-1]) else lines


def _blank(lines: Sequence[str]) -> int:
    """How many blank lines come first."""
    return next((at for at, line in enumerate(lines) if line.strip()), len(lines))


def _title_lines(lines: Sequence[str], wanted: Collection[str]) -> int:
    """How many lines of title come before the header, which has all wanted names; 0 where no line has."""
    for at, line in enumerate(lines[:20]):
        if all(name in line for name in wanted):
            separator = _find_separator([line, *filter(str.strip, lines[at + 1 :])])
            if set(wanted) <= {field.strip() for field in _split(line, separator, True)}:
                return at
    return 0


def _find_separator(lines: Sequence[str]) -> str:
    """The separator that splits the first line and most others into the same number of fields, the most of them.

    >>> _find_separator(["user;item;price", "1;2;3,5", "1;3;2,5"])
    ';'
    """
    best, most = ",", (False, 1)
    for separator in SEPARATORS:
        counts = [_count(line, separator) for line in lines[:100]]
        even = sum(count == counts[0] for count in counts) >= 0.8 * len(counts)
        if counts[0] > 1 and (even, counts[0]) > most and not (separator == " " and most[1] > 1):
            best, most = separator, (even, counts[0])
    return best


def _count(line: str, separator: str) -> int:
    return len(_split(line, separator, True))


def _split(line: str, separator: str, quoting: bool) -> list[str]:
    """The fields of one line."""
    if len(separator) > 1 or not quoting:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return line.split(separator)


def _first_row(source: Source, lines: Sequence[str], separator: str, quoting: bool) -> tuple[tuple[str, ...], int]:
    """Fields of the first row, and how many lines it takes."""
    if len(separator) > 1 or not quoting:
        return tuple(name.strip() for name in lines[0].split(separator)), 1
    try:
        reader = csv.reader(io.StringIO("\n".join(lines)), delimiter=separator)
        fields = next(reader)
    except (csv.Error, TypeError, ValueError) as e:
        raise InputError(f"the first line of '{source.name}' cannot be split into fields ({e}): check it.") from e
    return tuple(name.strip() for name in fields), reader.line_num


def _rewritten(source: Source, folder: Path, codec: str, separator: str) -> Path:
    """A copy in UTF-8 with a single character between fields; its lines are those of the file."""
    target = folder / f"{source.plain.name}.text"
    try:
        with source.plain.open(encoding=codec) as text, target.open("w", encoding="utf-8", newline="\n") as plain:
            for line in text:
                line = line.removeprefix("\ufeff")
                plain.write(line.replace(separator, STAND_IN) if len(separator) > 1 else line)
    except (UnicodeError, LookupError) as e:
        raise InputError(f"'{source.name}' is no text in {codec} ({e}): give another --encoding.") from e
    return target


def _find_quotes(plain: Path, layout: Layout) -> Quotes:
    """Whether fields are quoted: "fields" where every line with a quote is, by the rules of CSV, complete;
    "none" where they are not, but every such line has the right number of fields as it stands."""
    separator, count = f"\\x{ord(layout.separator):02x}", len(layout.fields)
    field = rf'(?:"(?:[^"]|"")*"|[^"{separator}]*)'
    line = pl.col("line")
    lines = pl.scan_csv(
        plain, has_header=False, skip_lines=layout.skip, separator="\x1e", quote_char=None, glob=False,
        schema={"line": pl.String}, truncate_ragged_lines=True,
    ).filter(line.str.contains('"', literal=True))  # fmt: skip
    try:
        quoted, plainly = lines.select(
            line.str.contains(rf"^{field}(?:{separator}{field}){{{count - 1}}}\r?$").all().alias("quoted"),
            (line.str.count_matches(layout.separator, literal=True) == count - 1).all().alias("plainly"),
        ).collect(engine="streaming").row(0)  # fmt: skip
    except pl.exceptions.PolarsError:  # very many fields
        return "unclear"
    return "fields" if quoted else "none" if plainly else "unclear"


def positions(wanted: dict[str, str], fields: Sequence[str], name: str, header: bool = True) -> dict[str, int]:
    """Position of each wanted column among the fields of a file."""
    return {column: field_position(field, fields, name, header) for column, field in wanted.items()}


def field_position(name: str, fields: Sequence[str], file: Path | str, header: bool = False) -> int:
    """Position of a named field; where there is none, the error lists the fields and the nearest.

    `header`: the fields are the first line of a text file, which may be no header.
    """
    if fields.count(name) == 1:
        return fields.index(name)
    if name in fields:
        raise InputError(f"'{file}' has {fields.count(name)} columns named '{name}': give them different names.")
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in fields], 1, 0.5)
    hint = next((f" (nearest: '{cut(known, False)}')" for known in fields if known.lower() in near), "")
    advice = ""
    if header and len(fields) > 1 and any(not field or NUMBER.fullmatch(field) for field in fields):
        example = ["user", "item", "category", "time", *(f"c{at}" for at in range(5, len(fields) + 1))][: len(fields)]
        advice = (
            f" These look like values: a header seems to be missing; name the {len(fields)} fields of a row in order, "
            f"for example --columns {','.join(example[:8])}{',…' if len(fields) > 8 else ''}."
        )
    elif header and len(fields) == 1:
        advice = " No separator was found: give it with --separator (comma, tab, ;, |, :: and space are tried)."
    elif header:
        advice = " The columns of a file without a header are named with --columns."
    raise InputError(f"'{file}' has no column '{cut(name, False)}'{hint}: its columns are {_listed(fields)}.{advice}")


def _listed(fields: Sequence[str]) -> str:
    return ", ".join(map(cut, fields[:20])) + (f", … ({len(fields)} in all)" if len(fields) > 20 else "")
