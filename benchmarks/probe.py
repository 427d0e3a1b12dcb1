"""The linear probe on features that are encoded once, against the usual loop that encodes every image in every epoch.

Both train the linear layer of the published protocol (Adam 1e-3, batches of 32, rate divided by ten at 60 and 80 %) on a frozen
ResNet-18 at 64 px over pictures of the EuroSAT twin, from the same jpg files to answers on the same held-out pictures. Ours: the
product's reader, feature cache and layer. Theirs: per image PIL, per batch preprocessing and network, autograd, one `nn.Linear`,
in every epoch again. CPU time of one process and thread, by turns. The accuracies must lie in each other's 95 % interval.
"""

from __future__ import annotations

import argparse
import io
import json
import platform
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from caco_assets.downstream.datasets.classification import LabelledImages
from caco_assets.downstream.datasets.readers import eurosat
from caco_assets.downstream.features.feature_cache import FeatureCache
from caco_assets.downstream.metrics.bootstrap import accuracy, bootstrap_mean
from caco_assets.downstream.probes.linear_adam import fit_linear_adam
from caco_assets.downstream.tasks import PaperProtocol
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.synthetic.twins.eurosat import draw_town, towns, write_twin

BAR = 20.0
SIDE, CLASSES = 64, 10


def ours(encoder: Encoder, data: LabelledImages, epochs: int) -> tuple[float, np.ndarray]:
    """CPU seconds from files to predictions of the held-out pictures, with an empty cache."""
    with tempfile.TemporaryDirectory() as scratch:
        start = time.process_time()
        cache = FeatureCache(Path(scratch))
        identity = encoder.identity
        train, test = (cache.features(encoder, identity, data, part, SIDE) for part in ("train", "val"))
        layer = fit_linear_adam([train], data.parts["train"].labels, CLASSES, PaperProtocol(), epochs, 0)
        return time.process_time() - start, layer.predict(test)


def theirs(encoder: Encoder, data: LabelledImages, archive: Path, epochs: int) -> tuple[float, np.ndarray]:
    """The same, every image decoded and encoded in every epoch."""
    start = time.process_time()
    with zipfile.ZipFile(archive) as store:
        member = {Path(name).name: name for name in store.namelist()}

        def batch(names: list[str]) -> torch.Tensor:
            images = [np.asarray(Image.open(io.BytesIO(store.read(member[name])))).transpose(2, 0, 1) for name in names]
            with torch.no_grad():
                return encoder(encoder.preprocess(np.stack(images), data.pixel_format, SIDE))

        generator = torch.Generator().manual_seed(0)
        layer = nn.Linear(encoder.width, CLASSES)
        optimiser = torch.optim.Adam(layer.parameters(), lr=1e-3)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimiser, [int(0.6 * epochs), int(0.8 * epochs)])
        train, labels = data.parts["train"].names, torch.from_numpy(data.parts["train"].labels)
        for _ in range(epochs):
            for chosen in torch.randperm(len(train), generator=generator).split(32):
                optimiser.zero_grad()
                nn.functional.cross_entropy(layer(batch([train[i] for i in chosen])), labels[chosen]).backward()
                optimiser.step()
            schedule.step()
        with torch.no_grad():
            names = data.parts["val"].names
            logits = torch.cat([layer(batch(list(names[i : i + 32]))) for i in range(0, len(names), 32)])
    return time.process_time() - start, logits.argmax(dim=1).numpy()


def twin(folder: Path, per_class: int) -> LabelledImages:
    """The EuroSAT twin; its test pictures join the held-out ones."""
    pictures = [picture for town in towns(0, per_class) for picture in draw_town(0, *town)]
    write_twin(folder, 0, pictures)
    lists = folder / "eurosat"
    held_out = (lists / "split-val.txt").read_text() + (lists / "split-test.txt").read_text()
    (lists / "split-val.txt").write_text(held_out)
    (lists / "split-test.txt").unlink()
    return eurosat.read(lists / "EuroSAT.zip")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, epochs and repeats")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    per_class, epochs, repeats = (10, 50, 2) if quick else (30, 100, 3)
    print(
        f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}, one thread"
    )
    encoder = Encoder.random("resnet18", Preprocessing.of_pack(RGB, "eurosat", SIDE), 0).eval()
    encoder.backbone.to(memory_format=torch.channels_last)
    ratios, agree = [], True
    with tempfile.TemporaryDirectory() as scratch:
        data = twin(Path(scratch), per_class)
        truth = data.parts["val"].labels
        ours(encoder, data, 2)
        for _ in range(repeats):
            (a, mine), (b, other) = (
                ours(encoder, data, epochs),
                theirs(encoder, data, Path(scratch) / "eurosat" / "EuroSAT.zip", epochs),
            )
            ratios.append(b / a)
            values = [accuracy(truth, found) for found in (mine, other)]
            ends = [bootstrap_mean((found == truth).astype(float), 1000, np.random.default_rng(0)) for found in (mine, other)]
            agree &= ends[0][0] <= values[1] <= ends[0][1] and ends[1][0] <= values[0] <= ends[1][1]
            print(
                f"{len(data.parts['train'])} pictures, {epochs} epochs: usual {b:.1f} s ({values[1]:.1%}), ours {a:.2f} s "
                f"({values[0]:.1%} [{ends[0][0]:.1%}, {ends[0][1]:.1%}]), ratio {b / a:.0f}"
            )
    ratio = statistics.median(ratios)
    line = {"benchmark": "probe", "ratio": round(ratio, 2), "low": round(min(ratios), 2), "high": round(max(ratios), 2), "bar": BAR}
    print(json.dumps(line | {"pass": ratio >= BAR and agree}))
    return 0 if ratio >= BAR and agree else 1


if __name__ == "__main__":
    sys.exit(main())
