"""A decoder's training epoch from kept feature levels against encoding every tile again, for pairs of two dates.

Both train the same decoder on a frozen ResNet-18 with the same seed, tiles, positions and batches, through the product's own loop;
kept levels are in half precision on disk. CPU time of one thread and process, by turns. What keeping costs beforehand (each tile is
encoded in each of its eight positions) is timed too, and turned into the number of epochs, over all seeds, from which it pays.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from caco_assets.downstream.datasets.segmentation import PHOTOGRAPH
from caco_assets.downstream.features.pyramids import POSITIONS, Fresh, Kept, Pyramids, Tiles, pyramids
from caco_assets.downstream.finetuning.decoder_loop import DecoderConfig, Part, fit
from caco_assets.downstream.finetuning.dense_targets import Change
from caco_assets.pretraining.encoder.encoder import Encoder, Preprocessing

BAR = 1.2
SIDE = 96
"""Pixels, as OSCD's tiles."""


def seconds(source: Pyramids, tiles: Tiles, epochs: int) -> tuple[float, float]:
    """CPU seconds of training, and the size of the decoder's first weights afterwards."""
    start = time.process_time()
    config = DecoderConfig(epochs, 4, 1e-3, 1e-4, 0.95, 1e-4)
    fitted = fit(Part(tiles, source), None, Change(), config, 0, torch.device("cpu"))
    return time.process_time() - start, float(next(fitted.decoder.parameters()).detach().norm())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tiles and repeats")
    quick = parser.parse_args().quick
    count, epochs, repeats = (8, 1, 3) if quick else (24, 2, 5)
    torch.set_num_threads(1)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread"
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 2, 3, SIDE, SIDE)).astype(np.uint8)
    tiles = Tiles(images, rng.integers(0, 2, (count, SIDE, SIDE)).astype(np.uint8), PHOTOGRAPH)
    encoder = Encoder.random("resnet18", Preprocessing.unit_rgb(SIDE), 0).eval()
    encoder.backbone.to(memory_format=torch.channels_last)
    fresh = Fresh(encoder)
    ratios, pays, agree = [], [], True
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        kept = pyramids(encoder, encoder.identity, tiles, "benchmark", POSITIONS, Path(folder), 1e12)
        keeping = time.process_time() - start
        assert isinstance(kept, Kept)
        seconds(fresh, tiles, 1)
        for _ in range(repeats):
            (ours, mine), (theirs, other) = seconds(kept, tiles, epochs), seconds(fresh, tiles, epochs)
            ratios.append(theirs / ours)
            pays.append(keeping / ((theirs - ours) / epochs) if theirs > ours else float("inf"))
            # half precision is all that tells them apart
            agree &= abs(mine - other) <= 1e-2 * other
            per_pair = [1000 * each / (epochs * count) for each in (theirs, ours)]
            print(f"{count} pairs, {epochs} epochs: encoded {per_pair[0]:.1f}, kept {per_pair[1]:.1f} ms a pair and epoch")
    each = 1000 * keeping / (POSITIONS * count)
    print(f"keeping: {each:.1f} ms a pair and position; it pays from {statistics.median(pays):.0f} epochs over all seeds")
    ratio = statistics.median(ratios)
    line = {"benchmark": "dense_cache", "ratio": round(ratio, 2), "low": round(min(ratios), 2), "high": round(max(ratios), 2)}
    print(json.dumps(line | {"bar": BAR, "pass": ratio >= BAR and agree}))
    return 0 if ratio >= BAR and agree else 1


if __name__ == "__main__":
    sys.exit(main())
