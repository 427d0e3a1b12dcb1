"""What bfloat16 gains on a CPU that has it: a query pass forward and back of a ResNet-18 at 64 px, autocast against fp32.

Both run on the same images and weights, by turns, on one thread; the figure is the ratio of CPU times, so that other load on the
machine enters little. There is no bar: fp32 is the default on CPUs, and this says what `precision: bf16` is worth.

The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time

import torch

from caco_assets.pretraining.encoder.encoder import backbone


def seconds(network: torch.nn.Module, images: torch.Tensor, reduced: bool) -> float:
    """CPU time of one pass forward and back."""
    start = time.process_time()
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        loss = network(images).float().square().mean()
    loss.backward()
    return time.process_time() - start


def main() -> int:
    """Measure by turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smaller batch, fewer turns")
    quick = parser.parse_args().quick
    batch, turns = (32, 3) if quick else (128, 8)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = backbone("resnet18", 3).to(memory_format=torch.channels_last).train()
    images = torch.randn(batch, 3, 64, 64).to(memory_format=torch.channels_last)
    for reduced in (False, True):
        seconds(network, images, reduced)
    pairs = [(seconds(network, images, False), seconds(network, images, True)) for _ in range(turns)]
    ratios = sorted(full / reduced for full, reduced in pairs)
    full, reduced = (statistics.median(side) for side in zip(*pairs, strict=True))
    print(f"torch {torch.__version__}, one thread, {batch} images of 64 px: fp32 {full:.2f} s, bf16 {reduced:.2f} s")
    figure = {"ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    print(json.dumps({"benchmark": "precision", **{name: round(value, 3) for name, value in figure.items()}, "pass": True}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
