"""Is true change found better by the encoder's change maps than by plain arithmetic on pixels?

Draws places of the embedded Earth, every third changed, maps their change with an encoder (`--encoder FOLDER`, default random
weights of a ResNet-18, whose first level already sees edges), and judges maps and place scores against the truth, beside the two
pixel baselines of `pretraining.change.change_map`. `--quick` draws fewer places.

The last line is one JSON object; `ratio` is the share of wrongly ordered pairs of places (1 - AUROC) of the better pixel baseline
over that of the maps. The bar: AUROC of at least 0.98, and an interval of the paired difference above 0.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from caco_assets.observability.logs import log_to_stderr
from caco_assets.pretraining.change.ground_truth import MaskTruth
from caco_assets.pretraining.change.map_product import BASELINES, OURS, write_change_maps
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.pack.format import Pack
from caco_assets.synthetic.chips import DrawnPlace, Wanted, draw_places

BAR = 0.98
BANDS = ("B04", "B03", "B02")


def draw(folder: Path, count: int, seed: int) -> tuple[Pack, MaskTruth]:
    """A pack of drawn places and their truth."""
    wanted = Wanted(side=126, seasons=5, changed_share=1 / 3, bands=BANDS)
    places: list[DrawnPlace] = list(draw_places(seed, 0, count, wanted))
    chips = [chip for place in places for chip in place.chips]
    sizes = {"chip_size": wanted.side, "seasons": wanted.seasons, "min_seasons": 3, "total": len(chips)}
    build(iter(chips), folder / "pack", bands=BANDS, archive_bands=BANDS, stretch="seco", **sizes)
    rows = [{"location_id": place.chips[0].location_id, "changed": place.changed} for place in places]
    pq.write_table(pa.Table.from_pylist(rows), folder / "change.parquet")
    return Pack.open(folder / "pack"), MaskTruth.read(folder / "change.parquet")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", type=Path, help="folder of an encoder; default random weights")
    parser.add_argument("--places", type=int, default=360)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="120 places")
    options = parser.parse_args()
    log_to_stderr()
    count = 120 if options.quick else options.places
    encoder = (
        Encoder.load(options.encoder)
        if options.encoder
        else Encoder.random("resnet18", Preprocessing.of_pack(BANDS, "seco", 64), options.seed)
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pack, truth = draw(folder, count, options.seed)
        start = time.perf_counter()
        write_change_maps(folder / "maps", encoder, pack, truth=truth, write_tar=lambda path, _: (path.touch(), {})[1], seed=0)
        seconds = time.perf_counter() - start
        figures = json.loads((folder / "maps" / "figures.json").read_text())
    for estimate in (OURS, *BASELINES):
        found = figures[f"place_auroc_{estimate}"]
        print(f"{estimate:12} AUROC of places {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}]")
    print(f"{count} places mapped in {seconds:.0f} s")
    best = max(BASELINES, key=lambda name: figures[f"place_auroc_{name}"]["value"])
    ours, theirs = figures[f"place_auroc_{OURS}"], figures[f"place_auroc_{best}"]
    wrong = [max(1 - ours[part], 1e-4) for part in ("value", "low", "high")]
    missed = 1 - theirs["value"]
    passed = ours["value"] >= BAR and figures[f"place_auroc_{OURS}-{best}"]["low"] > 0
    result = {"benchmark": "change", "ratio": missed / wrong[0], "low": missed / wrong[1], "high": missed / wrong[2]}
    print(json.dumps({**result, "bar": BAR, "auroc": ours["value"], "pass": bool(passed)}))
    return 0 if passed else 1


if __name__ == "__main__":
    np.seterr(all="raise", under="ignore")
    sys.exit(main())
