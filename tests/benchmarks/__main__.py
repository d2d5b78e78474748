"""Measures what protection costs: `tox run -e bench`, or `python -m benchmarks` with `tests` on the path.

    tox run -e bench                          # all of it, some ten minutes; writes the files of the documentation
    tox run -e bench -- calls threads         # only these, into a folder of their own
    tox run -e bench -- --quick               # roughly, in a minute or two

Everything is a ratio to something in the same run, medians of turns that are taken by all contenders.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import environments, plot, report
from benchmarks.bench import HERE, Bench
from benchmarks.machine import describe

GROUPS = {
    "where": "where the time goes: what a call executes, by module",
    "calls": "one call, with everybody",
    "threads": "one breaker in many threads",
    "propagation": "opened here, rejected there",
    "contention": "many processes on one key",
    "startup": "imports and the command line",
    "scale": "many breakers",
    "lives": "many short-lived workers",
    "servers": "on a Redis and on a PostgreSQL that are started for it",
}

OTHER_PYTHON = "3.11"
"""What calls and start-up are measured with as well: the oldest."""

DOCS = environments.ROOT / "docs"


def main() -> int:
    """Measure, print the tables, write results and plots."""
    options = _options()
    chosen = options.groups or list(GROUPS)
    whole = set(chosen) == set(GROUPS) and not options.quick
    with tempfile.TemporaryDirectory(prefix="resilience-bench-", ignore_cleanup_errors=True) as folder:
        bench = Bench(Path(folder), quick=options.quick)
        if not options.one_python and {"calls", "startup"} & set(chosen):
            _add_other_python(bench)
        results: dict[str, Any] = {"machine": describe(bench)}
        for group in chosen:
            print(f"{group}: {GROUPS[group]} …", end="", file=sys.stderr, flush=True)
            started = time.monotonic()
            results[group] = importlib.import_module(f"benchmarks.{group}").measure(_own(bench, group))
            print(f" {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    results = json.loads(json.dumps(results, default=str))  # as it is when it is read again
    print(report.targets(results))
    print(report.machine(results))
    _write(results, options.output or (DOCS if whole else Path("benchmark")))
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure what protection costs.")
    parser.add_argument("groups", nargs="*", metavar="GROUP", choices=[*GROUPS, []], help=", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="measure roughly")
    parser.add_argument("--one-python", action="store_true", help=f"leave out Python {OTHER_PYTHON}")
    parser.add_argument("--output", type=Path, help="the folder to write to, instead of docs or ./benchmark")
    return parser.parse_args()


def _add_other_python(bench: Bench) -> None:
    python = environments.interpreter(OTHER_PYTHON)
    if python is None:
        print(f"Python {OTHER_PYTHON} is not here, and is left out", file=sys.stderr)
    elif OTHER_PYTHON != HERE:
        made = environments.make(python, bench.folder / f"environment-{OTHER_PYTHON}", group="bench")
        bench.pythons = {OTHER_PYTHON: made, **bench.pythons}


def _own(bench: Bench, group: str) -> Bench:
    folder = bench.folder / group
    folder.mkdir()
    return Bench(folder, bench.quick, bench.pythons)


def _write(results: dict[str, Any], folder: Path) -> None:
    """Write the results, and the plots that are drawn from them."""
    data, static = folder / "_data", folder / "_static"
    for place in (data, static):
        place.mkdir(parents=True, exist_ok=True)
    (data / "benchmark.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    for name, picture in plot.pictures(results).items():
        (static / name).write_text(picture, "utf-8")
    print(f"written: {data / 'benchmark.json'}, {static}/cost-*.svg", file=sys.stderr)


if __name__ == "__main__":
    raise SystemExit(main())
