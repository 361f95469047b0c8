"""dare official: the authors' own weights and samples, read, written and scored."""

from pathlib import Path
from typing import Annotated

import typer

from dare_core.errors import InputError

official_app = typer.Typer(
    no_args_is_help=True,
    help="The authors' own files: weights (.pth) and samples (.npy).\n\n"
    "Example: dare official score --config V.json --weights V.pth --batch batch.npz --out out.npz --trust",
)
Trust = Annotated[
    bool, typer.Option("--trust", help="read the pickle: it can run code, so say that you trust its source")
]


Constructor = Annotated[Path | None, typer.Option("--config", help="JSON file with the constructor's arguments")]


def check(config: Path | None, **given: object) -> Path:
    """The configuration's path; refuses no and several of some options, and --weights without --config."""
    if sum(value is not None for value in given.values()) != 1:
        raise InputError(f"Give exactly one of {', '.join(f'--{name}' for name in given)}.")
    if given["weights"] is not None and config is None:
        raise InputError("--weights needs --config.")
    return config or Path()


@official_app.command("score")
def official_score(
    config: Annotated[Path, typer.Option(help="JSON file with the constructor's arguments")],
    weights: Annotated[Path, typer.Option(help=".pth file of the published code")],
    batch: Annotated[Path, typer.Option(help=".npz file: item, category, label, history_items, history_categories")],
    out: Annotated[Path, typer.Option(help=".npz file to write")],
    trust: Trust = False,
) -> None:
    """Compute on a batch what the published code computes, in float64.

    Writes scores, features, probability, loss, auxiliary_loss.

    Example: dare official score --config V.json --weights V.pth --batch batch.npz --out out.npz --trust
    """
    from dare_core.published.weights import score

    score(config, weights, batch, out, trust)
    typer.echo(f"wrote {out}")


@official_app.command("import")
def official_import(
    out: Annotated[Path, typer.Option(help="file to write: .safetensors of weights, .npz of samples")],
    weights: Annotated[Path | None, typer.Option(help=".pth file of the published code; needs --config")] = None,
    config: Constructor = None,
    samples: Annotated[Path | None, typer.Option(help=".npy file of samples of the published code")] = None,
    trust: Trust = False,
) -> None:
    """Turn a published file into one that is no pickle: weights under our names, or samples as plain arrays.

    Example: dare official import --samples val.npy --out val.npz --trust

    Example: dare official import --config V.json --weights V.pth --out V.safetensors --trust
    """
    from dare_core.published import samples as tables
    from dare_core.published import weights as files

    constructor = check(config, weights=weights, samples=samples)
    if samples is not None:
        tables.write_table(out, tables.read_samples(samples, trust))
    elif weights is not None:
        files.import_weights(constructor, weights, out, trust)
    typer.echo(f"wrote {out}")


@official_app.command("export")
def official_export(
    out: Annotated[Path, typer.Option(help="file to write; a folder for --run and --log")],
    weights: Annotated[Path | None, typer.Option(help=".safetensors of an import; needs --config")] = None,
    config: Constructor = None,
    samples: Annotated[Path | None, typer.Option(help=".npz file of an import")] = None,
    run: Annotated[str | None, typer.Option(help="a stored run: its config.json and weights.pth")] = None,
    log: Annotated[str | None, typer.Option(help="a prepared log: its training, validation and test samples")] = None,
    seed: Annotated[int, typer.Option(min=0, help="of the negatives of --log")] = 1,
) -> None:
    """Write weights or samples as the published code reads them.

    Example: dare official export --log complete_journey --out samples

    Example: dare official export --config V.json --weights V.safetensors --out V.pth
    """
    from dare_core.published import samples as tables
    from dare_core.published import weights as files

    constructor = check(config, weights=weights, samples=samples, run=run, log=log)
    if weights is not None:
        files.export_weights(constructor, weights, out)
    elif samples is not None:
        tables.write_rows(out, tables.read_table(samples))
    elif run is not None:
        files.export_run(run, out)
    elif log is not None:
        tables.export_log(log, seed, out)
    typer.echo(f"wrote {out}")
