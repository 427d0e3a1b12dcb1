"""What `caco evaluate --all` costs on the embedded twins: wall clock and CPU time of every task, from nothing to its rows.

A ResNet-18 of random weights at 64 px is scored with all baselines in both protocols, as the command does it for the profile
`embedded`, in an empty folder: drawing the twins, decoding, encoding, probes and decoders are all counted. The bar is 15 minutes of
wall clock on two cores; CPU time says what a machine that is busy with other things would have needed. `--quick` takes two tasks
and holds them against their share of the bar.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path

import torch

from caco_assets.commands.evaluate import request_of_task
from caco_assets.downstream.evaluate import evaluate
from caco_assets.downstream.tasks import TASKS
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.settings import load_settings

BAR_S = 900.0
QUICK = ("eurosat", "levir_cd")


def cpu() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two tasks")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="these tasks alone")
    options = parser.parse_args()
    tasks = options.task or (QUICK if options.quick else tuple(TASKS))
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}", flush=True)
    encoder = Encoder.random("resnet18", Preprocessing.of_pack(RGB, "seco", 64), 7)
    began, wall, total = cpu(), time.monotonic(), 0
    with tempfile.TemporaryDirectory() as home:
        settings = load_settings("embedded", home=Path(home))
        for task in tasks:
            before, start = cpu(), time.monotonic()
            request = request_of_task(settings, task, twins=True)
            drawn, drawn_wall = cpu(), time.monotonic()
            rows = evaluate(settings, [request], encoder, name="random-7")
            total += len(rows)
            print(
                f"{task}: twin {drawn - before:.0f} s CPU ({drawn_wall - start:.0f} s), scored {cpu() - drawn:.0f} s CPU "
                f"({time.monotonic() - drawn_wall:.0f} s), {len(rows)} rows",
                flush=True,
            )
    wall, used = time.monotonic() - wall, cpu() - began
    print(f"{len(tasks)} tasks, {total} rows: {wall:.0f} s of wall clock, {used:.0f} s of CPU")
    ratio = BAR_S * len(tasks) / len(TASKS) / wall
    line = {"benchmark": "evaluate_twins", "ratio": round(ratio, 2), "low": round(ratio, 2), "high": round(ratio, 2), "bar": 1.0}
    print(json.dumps(line | {"wall_s": round(wall), "cpu_s": round(used), "pass": ratio >= 1}))
    return 0 if ratio >= 1 else 1


if __name__ == "__main__":
    sys.exit(main())
