"""Options of the commands that read a file: `dare data prepare table` and `dare diagnose`."""

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

OnBadRows = Annotated[Literal["refuse", "skip"], typer.Option(help="refuse, or skip and count")]
User = Annotated[str, typer.Option(help="column with the user")]
Item = Annotated[str, typer.Option(help="column with the item")]
Category = Annotated[str, typer.Option(help="column with the item's category")]
Time = Annotated[str, typer.Option(help="column with the time or order; file order when left out")]
Behaviour = Annotated[str, typer.Option(help="column with the behaviour")]
Keep = Annotated[str, typer.Option(help="behaviours to keep, separated by commas")]
Label = Annotated[str, typer.Option(help="column that says which impressions were clicked, 1 or 0")]
Columns = Annotated[str, typer.Option(help="names of the fields of a file without header, in order")]
Separator = Annotated[str, typer.Option(help="between fields, where the one found is wrong")]
Quotes = Annotated[bool | None, typer.Option(help="whether fields are quoted; found by itself")]
Encoding = Annotated[str, typer.Option(help="for example cp1251; UTF-8 and UTF-16 are found")]
TimeForm = Annotated[str, typer.Option(help="day-first, month-first, milliseconds, … or a pattern such as %d.%m.%y")]
Ties = Annotated[Literal["shuffle", "file"], typer.Option(help="order of a user's rows of equal time")]
Copies = Annotated[Literal["keep", "drop"], typer.Option(help="exact copies of rows")]
Ids = Annotated[Literal["keep", "tidy"], typer.Option(help="tidy joins ids that differ only in blanks or .0")]
LeaveOutUsers = Annotated[str, typer.Option(help="users to leave out, separated by commas")]
LongestUser = Annotated[int | None, typer.Option(min=1, help="leave out users with more rows than this")]
Since = Annotated[str, typer.Option(help="rows from this time on, a date or a number")]
Until = Annotated[str, typer.Option(help="rows before this time")]
Paths = Annotated[list[Path] | None, typer.Argument(help="the file; also several, a folder, or - for standard input")]

OPTIONS: dict[str, tuple[Any, Any]] = {
    "user": (User, ""), "item": (Item, ""), "category": (Category, ""), "time": (Time, ""),
    "behaviour": (Behaviour, ""), "keep": (Keep, ""), "label": (Label, ""), "columns": (Columns, ""),
    "separator": (Separator, ""), "quotes": (Quotes, None), "encoding": (Encoding, ""), "time_form": (TimeForm, ""),
    "ties": (Ties, "shuffle"), "copies": (Copies, "keep"), "ids": (Ids, "keep"),
    "leave_out_users": (LeaveOutUsers, ""), "longest_user": (LongestUser, None), "since": (Since, ""),
    "until": (Until, ""),
}  # fmt: skip
"""Options of the reader of tables by name, each with its value when it is not given."""
LISTS = ("keep", "columns", "leave_out_users")
"""Options of several values, separated by commas."""


def reads_a_table(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `OPTIONS`; those that were given come to it as `reading`."""
    own = [part for part in inspect.signature(command).parameters.values() if part.name != "reading"]
    kind = inspect.Parameter.KEYWORD_ONLY
    added = [inspect.Parameter(name, kind, default=value, annotation=of) for name, (of, value) in OPTIONS.items()]

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        reading = given({name: values.pop(name) for name in OPTIONS})
        command(**values, reading=reading)

    with_options.__signature__ = inspect.Signature([*own, *added])  # type: ignore[attr-defined]
    with_options.__annotations__ = {part.name: part.annotation for part in (*own, *added)}
    return with_options


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, lists as lists.

    >>> given({"user": "who", "item": "", "keep": "buy, view", "ties": "shuffle"})
    {'user': 'who', 'keep': ['buy', 'view']}
    """
    return {
        name: [part.strip() for part in value.split(",") if part.strip()] if name in LISTS else value
        for name, value in options.items()
        if value not in ("", None, OPTIONS[name][1])
    }
