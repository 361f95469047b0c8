"""The report on a log of one's own: one page of HTML that needs no network, and the same as JSON."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from dare_core.files import atomic_path, write_json

REPORT = ("report.html", "report.json")


def page(content: Mapping[str, Any], command: str) -> str:
    """The report as HTML; every text in it is escaped. `command` repeats the study."""
    environment = Environment(
        loader=PackageLoader("dare_core", "own_log"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    edges = [abs(asked[side]) for asked in content["questions"] for side in ("low", "high") if asked.get(side)]
    scale = max([0.01, *edges])
    return environment.get_template("report.html").render(
        **content, command=command, scale=scale, place=lambda value: round(95 + 90 * value / scale, 1)
    )


def write_report(folder: Path, content: Mapping[str, Any], command: str) -> tuple[Path, Path]:
    """Write both forms of the report; returns their paths."""
    written, data = (folder / name for name in REPORT)
    write_json(data, content)
    with atomic_path(written) as temporary:
        temporary.write_text(page(content, command), "utf-8")
    return written, data
