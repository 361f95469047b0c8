"""Options of the commands that read a file: `dare data prepare table` and `dare diagnose`."""

from collections.abc import Mapping
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

LISTS = ("keep", "columns", "leave_out_users")
"""Options of several values, separated by commas."""
DEFAULTS = {"ties": "shuffle", "copies": "keep", "ids": "keep"}
"""Of options that have a value when they are not given."""


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, lists as lists.

    >>> given({"user": "who", "item": "", "keep": "buy, view", "ties": "shuffle"})
    {'user': 'who', 'keep': ['buy', 'view']}
    """
    return {
        name: [part.strip() for part in value.split(",") if part.strip()] if name in LISTS else value
        for name, value in options.items()
        if value not in ("", None, DEFAULTS.get(name))
    }
