"""The process of one contender: `python -m benchmarks.child NAME FOLDER`, jobs by standard input, seconds by output."""

from __future__ import annotations

import gc
import importlib
import json
import sys

if __name__ == "__main__":
    jobs = importlib.import_module(f"benchmarks.contenders.{sys.argv[1]}").jobs(sys.argv[2])
    gc.collect()
    gc.freeze()  # so that what is collected between two turns is their own garbage only
    print(json.dumps(sorted(jobs)), flush=True)
    for line in sys.stdin:
        job, calls = json.loads(line)
        jobs[job](calls // 10 + 1)  # warm again after the others had their turn
        gc.collect()
        print(json.dumps([jobs[job](calls)]), flush=True)
