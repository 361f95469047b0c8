"""Run notebooks with their own parameters on an empty store, and keep their text outputs: `make notebooks`.

Names given as arguments (`python notebooks/refresh.py 05_overall`) restrict it to these notebooks.

Pictures and HTML are dropped, so that a difference between two versions can be read.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
import papermill

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


def main() -> None:
    """Refresh the stored outputs."""
    asked = sys.argv[1:] or [path.stem for path in FOLDER.glob("[0-9]*.ipynb")]
    with tempfile.TemporaryDirectory() as store:
        os.environ["DARE_STORE"] = store
        for path in sorted(FOLDER / f"{name}.ipynb" for name in asked):
            executed = Path(store) / path.name
            papermill.execute_notebook(path, executed, kernel_name="python3", progress_bar=False)
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


if __name__ == "__main__":
    main()
