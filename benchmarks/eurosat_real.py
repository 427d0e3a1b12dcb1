"""Rows on the real EuroSAT for backbones without training and for plain statistics, in both protocols, as a table for RESULTS.md.

    CACO_REAL=… python benchmarks/eurosat_real.py resnet18 resnet50 --folder FOLDER [--encoder FOLDER_OF_AN_ENCODER]

Random weights of each backbone (seed 0), ImageNet weights where this machine has them (nothing is downloaded; else the row says
so), means and deviations of the bands, and any trained encoder that is given. Nothing is compared here, so there is no ratio and
no bar. Features are kept below the folder: an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from caco_assets.downstream.features.baselines import Candidate, baselines
from caco_assets.downstream.scoring.score_task import resolve_tasks, score_task
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.settings import load_settings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("backbones", nargs="*", default=["resnet18", "resnet50"], help="timm names")
    parser.add_argument("--folder", type=Path, required=True, help="home of this run's cache")
    parser.add_argument("--encoder", type=Path, action="append", default=[], help="folder of a trained encoder")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64], help="input sides of `clean`, pixels")
    parser.add_argument("--limit", type=int, help="at most this many images per split, for a try")
    options = parser.parse_args()
    settings = load_settings("embedded", home=options.folder, downstream={"seeds": [0]})
    wanted = {"protocols": ("paper", "clean"), "sizes": tuple(options.sizes), "limit": options.limit}
    real = settings.downstream.tasks["eurosat_real"].model_copy(update=wanted)
    downstream = settings.downstream.model_copy(update={"tasks": {"eurosat_real": real}})
    settings = settings.model_copy(update={"downstream": downstream})
    (resolved,) = resolve_tasks(settings)
    candidates = [(folder.name, Candidate.of(folder.name, "candidate", 0, Encoder.load(folder))) for folder in options.encoder]
    for number, name in enumerate(options.backbones):
        like = Encoder.random(name, Preprocessing.of_pack(RGB, "seco", 64), 0)
        names = ("random", "imagenet") if number else ("raw_statistics", "random", "imagenet")
        candidates += [(name if who.name != "raw_statistics" else "–", who) for who in baselines(names, like, (0,))]
    print("| backbone | weights | protocol | side | method | accuracy, % | n |\n|---|---|---|---|---|---|---|", flush=True)
    for backbone, candidate in candidates:
        for row in score_task(settings, resolved, [candidate], settings.paths.cache):
            if row.value is None or row.ci_low is None or row.ci_high is None:
                figure = f"not measured: {row.note}"
            else:
                figure = f"{100 * row.value:.1f} [{100 * row.ci_low:.1f}, {100 * row.ci_high:.1f}]"
            print(f"| {backbone} | {row.encoder} | {row.protocol} | {row.size} | {row.method} | {figure} | {row.n} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
