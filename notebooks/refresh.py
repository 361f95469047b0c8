"""Run notebooks with their own parameters on an empty store, and keep their text outputs: `make notebooks`.

Names given as arguments (`python notebooks/refresh.py overall`) restrict it to these notebooks; without, the ledger
that they give is stored too, as what `tests/compare_ledger.py` expects.

Pictures and HTML are dropped, so that a difference between two versions can be read.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

from dare_core.report.ledger import results_folder, write_ledger
from dare_core.studies.settings import CONFIGS

FOLDER = Path(__file__).parent


def text_only(outputs: list) -> list:
    """Printed text and the plain form of results."""
    kept = []
    for output in outputs:
        if output["output_type"] == "stream" and output["name"] == "stdout":
            kept.append(output)
        elif output["output_type"] == "execute_result":
            output["data"] = {"text/plain": output["data"]["text/plain"]}
            output["metadata"] = {}
            kept.append(output)
    return kept


def parameter_cell(name: str) -> str:
    """Source of a chapter's parameter cell: its study's parameters with their default values."""
    lines = ["# Parameters: papermill NOTEBOOK OUT -p NAME VALUE, or dare study NAME -p NAME=VALUE"]
    for key, entry in CONFIGS[name].model_fields.items():
        comment = f"  # {entry.description}" if entry.description else ""
        value = json.dumps(entry.default) if isinstance(entry.default, str) else repr(entry.default)
        lines.append(f"{key} = {value}{comment}")
    return "\n".join(lines)


def write_parameters(path: Path) -> None:
    """Bring a notebook's parameter cell in line with its study."""
    notebook = nbformat.read(path, as_version=4)
    cell = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    cell["source"] = parameter_cell(path.stem)
    nbformat.write(notebook, path)


def main() -> None:
    """Refresh the parameter cells and the stored outputs."""
    asked = sys.argv[1:] or [path.stem for path in FOLDER.glob("*.ipynb")]
    with tempfile.TemporaryDirectory() as store:
        os.environ["DARE_STORE"] = store
        for path in sorted(FOLDER / f"{name}.ipynb" for name in asked):
            executed = Path(store) / path.name
            write_parameters(path)
            quiet = ["--IPKernelApp.log_level=CRITICAL"]
            papermill.execute_notebook(path, executed, kernel_name="python3", progress_bar=False, extra_arguments=quiet)
            source = nbformat.read(path, as_version=4)
            done = {cell["id"]: cell for cell in nbformat.read(executed, as_version=4).cells}
            code = [cell for cell in source.cells if cell.cell_type == "code"]
            for count, cell in enumerate(code, 1):  # nbval takes a cell without a count for one that was never run
                cell["outputs"] = text_only(done[cell["id"]]["outputs"])
                cell["execution_count"] = count
                for output in cell["outputs"]:
                    if "execution_count" in output:
                        output["execution_count"] = count
            nbformat.write(source, path)
            print(f"{path.name}: outputs stored", flush=True)
        if not sys.argv[1:]:
            ledger = write_ledger(results_folder("smoke"), "smoke")
            compare = FOLDER.parent / "tests" / "compare_ledger.py"
            subprocess.run([sys.executable, str(compare), str(ledger), "--write"], check=True)


if __name__ == "__main__":
    main()
