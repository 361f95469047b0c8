"""The command line: dare data | train | sweep | study | book | claims | runs | official.

A command imports what it needs when it runs, so that help, listings and refusals do not wait for PyTorch.
"""

import io
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from pydantic import ValidationError

from dare_core import options
from dare_core.errors import InputError
from dare_core.published.cli import official_app

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="A reproducible study of DARE: decoupled embeddings for long-sequence recommendation.\n\n"
    "Example: dare data prepare complete_journey && dare train --log complete_journey --model DARE",
)
data_app = typer.Typer(no_args_is_help=True, help="Prepare, generate and list logs.\n\nExample: dare data list")
runs_app = typer.Typer(no_args_is_help=True, help="The stored training runs.\n\nExample: dare runs list")
Parameters = Annotated[
    list[str] | None, typer.Option("-p", help="a setting of the study, key=value; may be given again")
]
Key = Annotated[str, typer.Argument(help="the run's key, or the start of it")]
app.add_typer(data_app, name="data")
app.add_typer(runs_app, name="runs")
app.add_typer(official_app, name="official")


def say(text: object) -> None:
    """Print a result."""
    typer.echo(str(text))


def parameters(pairs: list[str] | None) -> dict[str, Any]:
    """`key=value` pairs as text; the study's configuration knows which of them are numbers."""
    values: dict[str, Any] = {}
    for pair in pairs or []:
        key, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"-p {pair!r} is not of the form key=value.")
        values[key.strip()] = value
    return values


def text_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys in aligned columns."""
    from dare_core.report.ledger import number

    def text(value: Any) -> str:
        if isinstance(value, float):
            return number(value)
        return f"{value:,}" if isinstance(value, int) else str(value)

    cells = [list(rows[0]), *([text(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ("  ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) for line in cells)
    return "\n".join(line.rstrip() for line in lines)


def card_lines(card: Any) -> str:
    """A card as lines of text."""

    def text(value: Any) -> str:
        if isinstance(value, dict):
            return "; ".join(f"{key}: {text(part)}" for key, part in value.items())
        return " ".join(map(str, value)) if isinstance(value, list) else str(value)

    return "\n".join(f"{key:14} {text(value)}" for key, value in card.model_dump().items())


@data_app.command("prepare")
@options.reads_a_table
def data_prepare(
    reader: Annotated[str, typer.Argument(help="taobao, tmall, complete_journey or table")],
    paths: options.Paths = None,
    name: Annotated[str, typer.Option(help="name to store it under; by default the reader's")] = "",
    on_bad_rows: options.OnBadRows = "refuse",
    group: Annotated[str, typer.Option(help="column with a group of the item, for example its city")] = "",
    reading: Mapping[str, Any] = {},
) -> None:
    """Read a raw log into the store and print its data card: what was found, kept and is to be looked at.

    All options but --name and --on-bad-rows are those of the reader `table`; taobao takes --since and --until too.

    Example: dare data prepare taobao UserBehavior.csv --name taobao

    Example: dare data prepare table clicks.csv --user visitor --item page --category section --name mine
    """
    from dare_core.data.logs import prepare

    grouped: dict[str, Any] = {"group": group} if group else {}
    log = prepare(reader, paths or None, name=name or reader, on_bad_rows=on_bad_rows, **reading, **grouped)
    say(card_lines(log.card))


@data_app.command("generate")
def data_generate(
    out: Annotated[Path | None, typer.Argument(help="with --format: the file to write")] = None,
    kind: Annotated[str, typer.Option(help="twin, styled, independent, no_decay or no_semantics")] = "twin",
    users: Annotated[int, typer.Option(help="number of users")] = 700,
    world_seed: Annotated[int, typer.Option(help="seed of the world")] = 1,
    format: Annotated[str, typer.Option(help="write a raw file instead of a world: taobao")] = "",
    rows: Annotated[int | None, typer.Option(help="with --format: rows of the file, for example 100_000_000")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="with --format: seed of the file")] = 1,
    parameter: Parameters = None,
) -> None:
    """Generate a world whose true relevance is known, and print its data card; or a raw file of any size.

    -p sets what else a world has (dare_core/data/worlds.py): items, categories, repeat_share, items_per_style, kernels.

    Example: dare data generate --kind independent --users 4000

    Example: dare data generate --kind styled -p items=5000 -p categories=100 -p 'style_kernel={"exponent": 1.2}'

    Example: dare data generate --format taobao --rows 100_000_000 UserBehavior.csv
    """
    if format or out is not None or rows is not None:
        from dare_core.data.generated_file import write_taobao

        if format != "taobao" or out is None or rows is None:
            raise InputError(
                "a raw file is generated with `dare data generate --format taobao --rows N FILE.csv`: "
                "give all three, or none of them for a world."
            )
        size = write_taobao(out, rows, seed)
        say(
            f"{out}: {size.rows:,} rows, {size.users:,} users, {size.items:,} items, {size.categories:,} categories; "
            f"read it with `dare data prepare taobao {out} --name NAME`"
        )
        return
    from dare_core.config import explain
    from dare_core.data.generated import generate
    from dare_core.data.worlds import world_config

    try:
        further = {key: json.loads(text) if text[:1] == "{" else text for key, text in parameters(parameter).items()}
        config = world_config({"kind": kind, "users": users, "world_seed": world_seed, **further})
    except ValidationError as error:
        raise explain(error, "world") from error
    except json.JSONDecodeError as error:
        raise InputError(f"-p: {error.doc!r} is not JSON ({error.msg}).") from error
    say(card_lines(generate(config).card))


@data_app.command("list")
def data_list() -> None:
    """The prepared logs.

    Example: dare data list
    """
    from dare_core.data.logs import available
    from dare_core.files import store_root

    rows = [
        {"log": c.name, "kind": c.kind, "clicks": c.rows_kept, "users": c.users, "items": c.items} for c in available()
    ]
    say(text_table(rows) if rows else f"No log is prepared yet in {store_root()}: dare data prepare --help")


@data_app.command("show")
def data_show(name: str) -> None:
    """The data card of a log.

    Example: dare data show complete_journey
    """
    from dare_core.data.logs import load

    say(card_lines(load(name).card))


@data_app.command("remove")
def data_remove(name: str) -> None:
    """Remove a prepared log from the store; the raw file stays.

    Example: dare data remove taobao
    """
    from dare_core.data.logs import remove

    remove(name)
    say(f"Removed {name}.")


@app.command()
def train(
    log: Annotated[str, typer.Option(help="a prepared log, or generated, independent, no_decay, no_semantics")],
    model: Annotated[str, typer.Option(help="a model of the table of models")] = "DARE",
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 1,
    device: Annotated[str, typer.Option(help="cpu, or cuda for a GPU")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="processor threads; another number is another run")] = 1,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16 where PyTorch's autocast allows it")] = "float32",
    parameter: Parameters = None,
) -> None:
    """Train one model on one log, or read the run where it is stored, and print its scores.

    Example: dare train --log complete_journey --model TWIN --seed 2 -p size=32 -p epochs=1
    """
    from dare_core.studies.settings import StudyConfig

    config = StudyConfig.checked({"logs": log, **parameters(parameter)})  # before the slow imports
    from dare_core.evaluation.metrics import auc, logloss
    from dare_core.studies.experiment import Experiment
    from dare_core.training.runs import RunStore

    store = RunStore(device=device, threads=threads)
    experiment = Experiment(config, log, store)
    run = store.get(experiment.run_config(model, seed, precision=precision))
    labels = experiment.store.samples(run.config)["test"].labels
    kept = ~(run.test_probability != run.test_probability)
    say(f"run            {run.key} ({'read from the store' if run.reused else 'computed'})")
    say(f"model          {model}, {run.parameters:,} parameters")
    say(f"validation AUC {run.best.auc:.5f} (best, at iteration {run.best.step})")
    say(f"test AUC       {auc(labels[kept], run.test_probability[kept]):.5f}")
    say(f"test logloss   {logloss(labels[kept], run.test_probability[kept]):.5f}")
    say(f"training       {run.seconds:.1f} s, {run.samples_per_second:,.0f} samples/s")


@app.command()
def sweep(
    file: Annotated[Path, typer.Argument(help="the grid: a YAML file, see the book's page Commands")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="count runs, those there already, and core hours")] = False,
    jobs: Annotated[int, typer.Option(min=0, help="runs at a time; 0: as many as cores allow, one on a GPU")] = 0,
    ray: Annotated[str, typer.Option(help="address of a Ray cluster, say auto or HOST:6379; without it here")] = "",
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="cpu, or cuda for a GPU per run")] = "cpu",
    threads: Annotated[int, typer.Option(min=0, help="processor threads of a run; 0: as the file says")] = 0,
    out: Annotated[Path | None, typer.Option(help="the table of results, by default in the store")] = None,
) -> None:
    """Compute a declared grid of trainings, here or on a Ray cluster, and write its results as one Parquet table.

    What is in the store is not computed again: the same command goes on where it was stopped. Exit status: 0 all runs
    are there; 1 some failed, and are listed; 2 bad input; 130 interrupted.

    Example: dare sweep book/sweeps/seeds.yml --dry-run

    Example: dare sweep book/sweeps/seeds.yml --ray auto
    """
    from dare_core.sweeps.grid import read_sweep

    grid = read_sweep(file)  # refused before the slow imports
    from dare_core.sweeps.command import sweep as run

    raise typer.Exit(run(grid, file, dry_run, jobs, ray, device, threads, out, say))


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="name of a chapter, for example convergence")],
    parameter: Parameters = None,
    profile: Annotated[str, typer.Option(help="start from a profile's parameters")] = "smoke",
    out: Annotated[Path | None, typer.Option(help="folder of the executed notebook")] = None,
) -> None:
    """Execute one chapter's notebook with parameters, checked before a kernel starts.

    Example: dare study convergence -p logs=complete_journey -p size=8 -p seeds=2
    """
    from dare_core.chapters import chapter_parameters

    given = parameters(parameter)
    chapter_parameters(name, profile, given)  # refused before the slow imports
    from dare_core.book import run_study

    say(run_study(name, given, profile, out))


@app.command()
@options.reads_a_table
def diagnose(
    paths: options.Paths = None,
    negatives_within: Annotated[str, typer.Option(help="column in whose groups negatives are drawn, say city")] = "",
    on_bad_rows: options.OnBadRows = "refuse",
    split: Annotated[
        Literal["user", "time"], typer.Option(help="user: each user's last click is tested; time: the last tenth")
    ] = "user",
    all_users: Annotated[bool, typer.Option("--all-users", help="train on more than 120,000 samples")] = False,
    show_ids: Annotated[bool, typer.Option("--show-ids", help="show ids of users")] = False,
    name: Annotated[str, typer.Option(help="name of the log; by default the file's and a hash")] = "auto",
    seeds: Annotated[int, typer.Option(help="trainings per model")] = 3,
    seed: Annotated[int, typer.Option(help="seed of the first training")] = 1,
    out: Annotated[Path | None, typer.Option(help="folder of the report; by default in the store")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what was read and how long it takes")] = False,
    parameter: Parameters = None,
    reading: Mapping[str, Any] = {},
) -> None:
    """Say whether decoupled embeddings pay on a log of your own; leaves a report as HTML and JSON, and a notebook.

    Without a file it answers for Complete Journey, a real log. Exit status: 0 yes, a wider table does it, or no;
    3 cannot tell, or stop; 2 bad input; 130 interrupted.

    Example: dare diagnose clicks.csv --user visitor --item page --category section --time when
    """
    from dare_core.studies.settings import CONFIGS

    files = [str(path) for path in paths or []]
    named = {"keep": ",".join(reading.get("keep", [])), "clicked": reading.get("label", "")}
    known = {key: value for key, value in reading.items() if key in CONFIGS["your_own_log"].model_fields}
    further = {key: value for key, value in reading.items() if key not in known and key != "label"}
    values = {
        "path": files[0] if len(files) == 1 else json.dumps(files) if files else "",
        "group": negatives_within, "logs": name, "on_bad_rows": on_bad_rows, "split": split, "all_users": all_users,
        "show_ids": show_ids, "seeds": seeds, "seed": seed, **known, **named,
        "reading": json.dumps(further, ensure_ascii=False) if further else "",
        "command": shlex.join(["dare", *sys.argv[1:]]),
        **parameters(parameter),
    }  # fmt: skip
    CONFIGS["your_own_log"].checked(values)  # refused before the slow imports
    from dare_core.own_log.command import diagnose as run

    raise typer.Exit(run(values, out, dry_run, say))


@app.command()
def book(
    profile: Annotated[str, typer.Option(help="smoke, standard, full, paper, scale or tenth")] = "standard",
    chapters: Annotated[str, typer.Option(help="chapters to build, separated by commas; all by default")] = "",
    parameter: Parameters = None,
    out: Annotated[Path | None, typer.Option(help="folder of the book; by default in the store")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="execute chapters again that nothing has changed for")] = False,
    pdf: Annotated[bool, typer.Option("--pdf", help="print it too, as one file; needs the system's Chromium")] = False,
) -> None:
    """Execute the chapters and build the book; prints its first page and the ledger. A setting goes to every chapter
    that has it.

    Example: dare book --profile standard --chapters data,convergence -p logs=taobao -p history=50
    """
    from dare_core.chapters import book_parameters, execution_order

    names = [part.strip() for part in chapters.split(",") if part.strip()] or None
    given = parameters(parameter)
    book_parameters(list(execution_order(names)), profile, given, {})  # refused before the slow imports
    from dare_core.book import build_book

    result = build_book(profile, names, given, out, fresh, pdf)
    say(f"first page: {result.index_html}")
    say(f"ledger:     {result.ledger}")
    if result.pdf:
        say(f"printed:    {result.pdf}")


@app.command()
def claims(
    profile: Annotated[str, typer.Option(help="whose results: a profile, or the label of a book")] = "standard",
    as_json: Annotated[bool, typer.Option("--json", help="a list of objects")] = False,
    log: Annotated[str, typer.Option(help="rows of one log")] = "",
    claim: Annotated[str, typer.Option(help="rows of one claim, for example A3")] = "",
) -> None:
    """The ledger: claim, the paper's number, ours with its interval, log, verdict.

    Example: dare claims --profile standard --json

    Example: dare claims --log world_100m --claim A3
    """
    from dare_core.chapters import labels, read_plan
    from dare_core.report.ledger import ledger, ledger_table, results_folder

    known_profiles = [*read_plan("profiles.yml")["profiles"], *(label for label in labels() if "+" in label)]
    if profile not in known_profiles and profile not in labels():
        raise InputError(f"There is no profile {profile!r}: choose {', '.join(known_profiles)}.")
    rows = ledger(results_folder(profile), profile)
    for field, asked in (("log", log), ("claim", claim)):
        known = sorted({value for row in rows if (value := getattr(row, field))})
        if asked and asked not in known:
            raise InputError(f"the ledger has no {field} {asked!r}: there are {', '.join(known)}.")
        rows = [row for row in rows if not asked or getattr(row, field) == asked]
    if not rows:
        raise InputError(f"the ledger has no row of claim {claim} on log {log}.")
    if as_json:
        say(json.dumps([r.model_dump() for r in rows], indent=1, ensure_ascii=False))
    else:
        say(text_table(ledger_table(rows)))


@runs_app.command("list")
def runs_list() -> None:
    """Every stored run, oldest first.

    Example: dare runs list
    """
    from dare_core.training.store import runs_and_damaged, runs_root

    runs, damaged = runs_and_damaged()
    rows = [
        {
            "run": run.key,
            "log": run.config.log,
            "model": run.config.model.name,
            "size": run.config.model.size,
            "seed": run.config.seed,
            "validation AUC": run.best.auc,
            "created": run.created,
        }
        for run in runs
    ]
    say(text_table(rows) if rows else f"No run is stored yet in {runs_root()}: dare train --help")
    if damaged:
        runs_are = "runs" if len(damaged) > 1 else "run"
        say(f"{len(damaged)} damaged {runs_are} left out: {', '.join(damaged)} (dare runs remove KEY)")


@runs_app.command("show")
def runs_show(key: Key) -> None:
    """One run: its configuration, history and files.

    Example: dare runs show 3fa9
    """
    from dare_core.training.store import RECORD, ClickRecord, find_run, runs_root

    record = ClickRecord.read(runs_root() / find_run(key))
    say((runs_root() / record.key / RECORD).read_text("utf-8").rstrip())


@runs_app.command("remove")
def runs_remove(key: Key) -> None:
    """Remove a run from the store.

    Example: dare runs remove 3fa9
    """
    from dare_core.training.store import remove_run

    say(f"Removed {remove_run(key)}.")


def main() -> None:
    """Run the command line: bad input is one sentence on standard error and exit status 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a console without the letter prints a question mark
            stream.reconfigure(errors="replace")
    try:
        app()
    except InputError as error:
        typer.echo(f"dare: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"dare: {error.filename or 'a file'}: {error.strerror or error}.", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
