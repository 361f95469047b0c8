"""Random input for the reader of tables, for parameters of chapters and for the authors' files: each is read, or
refused in words, nothing else.

    .venv/bin/python tests/fuzz.py 100_000 [FIRST_SEED]

prints how many were read, and stops at the first that was neither, with its seed. Of ten inputs eight are files of
tables, one is parameters, one is a file of the authors' kind.
"""

import bz2
import csv
import gzip
import io
import os
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

SEPARATORS = [",", "\t", ";", "|", "::", " ", "\x01"]
IDS = ["7", "7.0", " 7", "NULL", "nan", "", "\\N", "zoë", 'a "b"', '"', "a\nb", "1e3", "9" * 25, "x" * 300, "\x00"]
TIMES = [
    "0", "1600000000", "1600000000000", "1600000000.5", "1e400", "-5", "nan", "20240103", "20240103101500", "9" * 19,
    "2024-01-03", "2024-01-03T10:15:00Z", "2024-01-03 10:15:00 UTC", "2024/1/3 9:05", "13/01/2024",
    "01/02/2024 3:15 PM", "31.12.2024", "3 Jan 2024", "Tue Apr 03 18:00:09 +0000 2012", "2024-02-30", "soon", "",
    "99/99/9999 99:99", "0000-00-00",
]  # fmt: skip
EVENTS = ["view", "buy", "1", "0", "true", "no", "", "?"]
OPTIONS: dict[str, list[Any]] = {
    "category": [None, "category"], "time": [None, "time", "time"], "behaviour": [None, "event"],
    "label": [None, None, None, "event"], "group": [None, None, "event", "category"],
    "keep": [(), (), ("view",), ("view", "buy")], "separator": [None, None, None, ";", "tab", "::", "ab"],
    "quotes": [None, None, True, False], "encoding": [None, None, None, "latin-1", "utf-16", "no such"],
    "columns": [(), (), ("user", "item", "category", "time", "event"), ("user", "item")],
    "time_form": [None, None, "day-first", "month-first", "seconds", "%d.%m.%Y", "%", "%H"],
    "ties": ["shuffle", "file"], "copies": ["keep", "drop"], "ids": ["keep", "tidy"], "longest_user": [None, None, 3],
    "leave_out_users": [(), (), ("7",)], "since": [None, None, None, "2020-01-01", "1600000000", "x"],
    "until": [None, None, None, "2024-06-01"], "on_bad_rows": ["skip", "skip", "refuse"],
}  # fmt: skip


def random_table(draw: random.Random) -> bytes:
    """A table with some of the faults of practice."""
    header = ["user", "item", "category", "time", "event"]
    ids, times = draw.sample(IDS, draw.randint(1, 5)) + ["1", "2", "3"], draw.sample(TIMES, draw.randint(1, 4))
    events = EVENTS[:3] if draw.random() < 0.9 else EVENTS
    rows = [
        [draw.choice(values) for values in (ids, ids, ids[-4:], times, events)]
        for _ in range(draw.choice([0, 1, 3, 20, 60]))
    ]
    rows = [header] * (draw.random() < 0.9) + rows
    for _ in range(draw.choice([0, 0, 0, 1, 3])):
        at = draw.randrange(len(rows) + 1)
        rows.insert(at, draw.choice([header, ["x"], [], ["a"] * 9, [""] * 5]))
    separator = draw.choice(SEPARATORS)
    if draw.random() < 0.1:
        return "\n".join(str(dict(zip(header, row, strict=False))).replace("'", '"') for row in rows).encode()
    if draw.random() < 0.5 and len(separator) == 1:
        text = io.StringIO()
        csv.writer(text, delimiter=separator, lineterminator=draw.choice(["\n", "\r\n"])).writerows(rows)
        content = text.getvalue()
    else:
        content = draw.choice(["\n", "\n", "\r\n", "\r"]).join(separator.join(row) for row in rows)
    data = content.encode(draw.choice(["utf-8"] * 6 + ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"]), "replace")
    for _ in range(draw.choice([0, 0, 0, 0, 1, 5])):
        at = draw.randrange(len(data) + 1)
        data = (
            data[:at]
            + draw.choice([b'"', b"\n", b"\xff", b"\x00", b",", b"", b"\xe2\x98"])
            + data[at + draw.choice([0, 1]) :]
        )
    return data


def random_bytes(draw: random.Random) -> bytes:
    """Bytes without sense, some behind the beginning of a known kind of file."""
    start = draw.choice(
        [
            b"",
            b"",
            b"PAR1",
            b"PK\x03\x04",
            b"\x1f\x8b",
            b"BZh9",
            b"{",
            b"[",
            b"user,item\n",
            b"\x28\xb5\x2f\xfd",
            b"sep=;\n",
        ]
    )
    alphabet = draw.choice([bytes(range(256)), b'user,item\n"0123;', b"0123456789,\n"])
    return start + bytes(draw.choice(alphabet) for _ in range(draw.choice([0, 3, 40, 400])))


def case(seed: int) -> tuple[bytes, dict[str, Any]]:
    """A file and options."""
    draw = random.Random(seed)
    data = random_table(draw) if draw.random() < 0.85 else random_bytes(draw)
    if draw.random() < 0.1:
        data = draw.choice([gzip.compress, bz2.compress])(data)
    plain = draw.random() < 0.7  # few options
    options = {
        name: draw.choice(values)
        for name, values in OPTIONS.items()
        if draw.random() < (0.06 if plain else 0.6) or name == "on_bad_rows" or (plain and name == "time")
    }
    return data, {name: value for name, value in options.items() if value is not None}


def attempt(path: Path, data: bytes, options: dict[str, Any]) -> str:
    """`log`, or the words of the refusal. Raises what the reader should not raise."""
    from dare_core.data.logs import load, prepare
    from dare_core.errors import InputError

    path.write_bytes(data)
    try:
        log = prepare("table", path, name="fuzz", **options)
    except InputError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 2_500, message
        return message
    assert load("fuzz").fingerprint == log.fingerprint
    assert log.card.rows_kept <= log.card.rows_read
    return "log"


VALUES: list[Any] = [
    "", "0", "-1", "1", "3", "20", "200", "1e3", "1.5", "nan", "inf", "9" * 30, "true", "auto", "all", "DARE",
    "DIN,TWIN",    "generated", "no such", ",", "a,,b", "5,1", "0.1,x", "user", "time", "cpu", "[", "{}", "\x00",
    "zoë", 7, 0.5, True, None,
]  # fmt: skip


def attempt_parameters(seed: int) -> str:
    """Random parameters of a chapter: `read`, or the words of the refusal."""
    from dare_core.errors import InputError
    from dare_core.studies.settings import CONFIGS

    draw = random.Random(seed)
    name = draw.choice(list(CONFIGS))
    fields = [*CONFIGS[name].model_fields, "no such"]
    values = {draw.choice(fields): draw.choice(VALUES) for _ in range(draw.randint(1, 5))}
    try:
        CONFIGS[name].checked(values)
    except InputError as error:
        assert "\n" not in str(error) and len(str(error)) < 2_500, error
        return str(error)
    return "read"


OFFICIAL = Path(__file__).parent / "official"


def attempt_published(path: Path, seed: int) -> str:
    """A damaged file of the authors' kind: `read`, or the words of the refusal."""
    from dare_core.errors import InputError
    from dare_core.published.samples import read_samples, read_table
    from dare_core.published.weights import read_batch, read_config, read_weights

    draw = random.Random(seed)
    source = draw.choice(["dare.json", "batch.npz", "samples.npy", "weights.safetensors"])
    known = OFFICIAL / source
    data = bytearray(known.read_bytes() if known.exists() and draw.random() < 0.8 else random_bytes(draw))
    for _ in range(draw.choice([1, 3, 20])):
        at = draw.randrange(len(data) + 1)
        data[at : at + draw.choice([0, 1, 50])] = draw.choice([b"", b"0", b"-1", b"\xff", b'"', b"null", b"[1]"])
    path = path.with_name(source)
    path.write_bytes(data)
    reads = {
        "dare.json": lambda: read_config(path),
        "batch.npz": lambda: (read_batch(path, read_config(OFFICIAL / "dare.json")), read_table(path)),
        "samples.npy": lambda: read_samples(path, True),
        "weights.safetensors": lambda: read_weights(path, True),
    }
    try:
        reads[source]()
    except InputError as error:
        assert len(str(error)) < 2_500, error
        return str(error)
    return "read"


def attempt_any(path: Path, seed: int) -> bool:
    """One input of any kind; whether it was read."""
    if seed % 10 == 8:
        return attempt_parameters(seed) == "read"
    if seed % 10 == 9:
        return attempt_published(path, seed) == "read"
    return attempt(path, *case(seed)) == "log"


def main(count: int, first: int) -> None:
    """Try so many inputs."""
    read = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DARE_STORE"] = f"{folder}/store"
        for seed in tqdm(range(first, first + count), disable=None):
            try:
                read += attempt_any(Path(folder) / "file", seed)
            except BaseException:
                print(f"seed {seed}")
                raise
    print(f"{count:,} inputs: {read:,} were read, {count - read:,} were refused in words")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
