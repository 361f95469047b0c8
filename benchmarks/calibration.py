"""Statistics of the Taobao head on which the default generated world is calibrated, beside those of that world.

    .venv/bin/python benchmarks/calibration.py ../shared/data/taobao_head/UserBehavior.csv

Writes `dare_core/data/taobao_statistics.json` and prints the ratio world / head of every statistic, the mean of the
three worlds with which the calibration was made (seeds 11, 12 and 13).
"""

import argparse
from pathlib import Path

import numpy as np

from dare_core.data import log_statistics
from dare_core.data.generated import generate
from dare_core.data.logs import prepare
from dare_core.data.worlds import WorldConfig
from dare_core.files import sha256_of, write_json

OUT = Path(log_statistics.__file__).with_name("taobao_statistics.json")
MADE = (
    "python benchmarks/calibration.py UserBehavior.csv, of the first 814 users of Alibaba's Taobao UserBehavior log "
    "(Tianchi data set 649), clicks (pv). Aggregated numbers only, rounded to 7 digits."
)
SEEDS = (11, 12, 13)


def main() -> None:
    """Compute, compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path, help="the first rows of Taobao's UserBehavior.csv")
    head = parser.parse_args().head
    of_head = log_statistics.statistics(prepare("taobao", head, name="taobao_head"))
    worlds = [log_statistics.statistics(generate(WorldConfig(world_seed=seed))) for seed in SEEDS]
    for name, value in of_head.items():
        mean = np.mean([np.nan if (found := world[name]) is None else found for world in worlds])
        print(f"{name:50} {value or np.nan:10.4f} {mean / (value or np.nan):8.2f}")
    rounded = {name: None if value is None else float(f"{value:.7g}") for name, value in of_head.items()}
    write_json(OUT, {"made": MADE, "source_sha256": sha256_of(head), "statistics": rounded})


if __name__ == "__main__":
    main()
