"""Results that are stored with the project: what is beyond the budget of a rebuild, and what rests on logs that the
project must not contain. `book/stored/CHAPTER.json` is of the full profile, `book/stored/further/LOG/CHAPTER.json` of
a further log; `book/keep.py` puts a finished result there.
"""

import html
import json
from pathlib import Path
from typing import Any

import polars as pl

from dare_core.errors import InputError
from dare_core.files import write_json
from dare_core.report.ledger import stored_folder
from dare_core.report.show import Shown, table

KEPT = {
    "method": ("recipe", "own_best", "identical", "competence"),
    "overall": ("scores", "sizes"),
    "convergence": ("scores", "iterations", "curves"),
    "gradients": ("statistics",),
    "projections": ("variants", "search", "cost", "budget"),
    "language": ("losses", "gaps", "shape", "curves", "nanogpt"),
    "attention": ("retrieval", "closeness", "curves", "maps", "controls"),
    "discriminability": ("values", "summary", "differences"),
    "search_efficiency": ("scores",),
    "retrieval_number": ("scores",),
    "turning": ("points",),
    "which_logs": ("points",),
    "published_code": ("moved", "compared", "ndcg"),
}
"""Tables that are stored: aggregates, never single behaviours of a log."""


def stored_result(chapter: str) -> dict[str, Any] | None:
    """The result of a chapter's full profile; None where none is stored."""
    path = stored_folder() / f"{chapter}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def further_results(chapter: str) -> dict[str, dict[str, Any]]:
    """A chapter's results on further logs, by the log's name."""
    paths = sorted(stored_folder().glob(f"further/*/{chapter}.json"))
    return {path.parent.name: json.loads(path.read_text("utf-8")) for path in paths}


def stored_rows(chapter: str, name: str) -> list[dict[str, Any]]:
    """The stored rows of a chapter's table: those of the full profile, then those of further logs."""
    contents = [stored_result(chapter), *further_results(chapter).values()]
    return [row for content in contents if content for row in content["tables"].get(name, [])]


def not_computed(chapter: str, what: str) -> Shown:
    """In place of a stored result that is not there yet: the command that computes it."""
    text = f"{what}: not computed yet. The command is dare study {chapter} --profile full."
    return Shown(text, f"<p><em>{html.escape(text)}</em></p>")


def show_stored_table(chapter: str, name: str, what: str) -> Shown:
    """A table of the stored full result, labelled with its seeds, date, machine and command."""
    content = stored_result(chapter)
    if content is None:
        return not_computed(chapter, what)
    seeds, machine = content["config"]["seeds"], content["environment"]
    computed = f"{content['date']}, {machine['processor']}, {machine['threads']} threads, torch {machine['torch']}"
    caption = f"{what}, {seeds} seeds, computed {computed}: dare study {chapter} --profile full"
    return table(content["tables"][name], caption)


def write_stored_tables(chapters: list[str], folder: Path) -> None:
    """Every stored table of some chapters as a CSV file, for their links."""
    folder.mkdir(parents=True, exist_ok=True)
    for chapter in chapters:
        further = {f"{log}_": content for log, content in further_results(chapter).items()}
        for prefix, content in {"": stored_result(chapter) or {"tables": {}}, **further}.items():
            for name, lines in content["tables"].items():
                if lines:
                    frame = pl.DataFrame(lines, infer_schema_length=None)
                    frame.write_csv(folder / f"{prefix}{chapter}_{name}.csv")


def keep(path: Path, log: str = "") -> Path:
    """Store a chapter's metrics file: that of the full profile, or of a further log; what was not studied is left out,
    and of a further log what is of no log (a measured time). Returns where it lies."""
    try:
        content = json.loads(path.read_text("utf-8"))
        rows = [row for row in content["rows"] if row["verdict"] != "not studied yet"]
        content["rows"] = [row for row in rows if row["log"] or not log]
        content["tables"] = {
            name: content["tables"][name] for name in KEPT[content["chapter"]] if name in content["tables"]
        }
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is not the metrics file of a chapter whose results are stored ({error}).") from error
    place = stored_folder() / (f"further/{log}" if log else "") / path.name
    write_json(place, content)
    return place
