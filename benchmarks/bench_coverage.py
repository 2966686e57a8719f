"""How often 95 % intervals hold, before and after, by simulation at the book's sizes.

    python benchmarks/bench_coverage.py [--runs 600] [--out data/results/coverage.csv]

A row a measurement and design; the columns are those that
`lottolab.truth.intervals.coverage.table` says. The page "How sure is sure?" is drawn
from the committed table. Of 600 runs a coverage is known to two points; they take five
CPU minutes.
"""

import argparse
import time
from pathlib import Path

from lottolab.truth.intervals.coverage import table


def main() -> None:
    """Write the table, and say how many CPU seconds it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("coverage.csv"))
    given = parser.parse_args()
    found = table.table(given.runs)
    found.round(4).to_csv(given.out, index=False, lineterminator="\n")
    print(found.round(3).to_string())
    print(f"{time.process_time():.0f} CPU seconds, {given.runs} runs")


if __name__ == "__main__":
    main()
