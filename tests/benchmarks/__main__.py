"""`make bench`: every figure of the README's performance table, measured here and now.

Each module of this package named in `BENCHES` has `run(quick) -> list[Row]`. `--only search,start` chooses; `--quick`
takes fewer repetitions.
"""

from __future__ import annotations

import argparse
import importlib
import os
import platform

from tests.benchmarks.measure import Row, show

BENCHES = (
    "start",
    "manifests",
    "search",
    "pipeline",
    "in_process",
    "stages",
    "cache",
    "load",
    "embedding",
    "extraction",
    "apply",
    "kubernetes",
)


def main() -> None:
    """Run the chosen benchmarks and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(BENCHES), help=f"some of {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.only.split(","):
        print(f"measuring {name} ...", flush=True)
        rows += importlib.import_module(f"tests.benchmarks.{name}").run(options.quick)
    print(f"\n{platform.machine()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
    show(rows)


if __name__ == "__main__":
    main()
