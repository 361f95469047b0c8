"""Keep finished results with the project, aggregates only: those of the full profile, or of a further log.

.venv/bin/python book/keep.py store/book/full/results/attention.json ml1m=store/ml1m/attention.json
"""

import sys
from pathlib import Path

from dare_core.report.stored import keep


def main() -> None:
    """Keep each file, named alone or as LOG=FILE."""
    for argument in sys.argv[1:]:
        log, _, file = argument.rpartition("=")
        print(keep(Path(file), log))


if __name__ == "__main__":
    main()
