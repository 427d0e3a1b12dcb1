"""Change maps: what differs in every pair of dates is found, and what only seasons change is not."""

import json
from dataclasses import replace
from itertools import combinations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from caco_assets.core.errors import UserError
from caco_assets.pretraining.change.change_map import (
    map_change,
    pair_distances,
    pixel_baselines,
    place_score,
    season_robust,
    smoothed,
)
from caco_assets.pretraining.change.ground_truth import MaskTruth
from caco_assets.pretraining.change.map_figures import cell_average_precision, cell_f1, place_auroc
from caco_assets.pretraining.change.map_pictures import _blocks
from caco_assets.pretraining.change.map_product import OURS, SCHEMA, write_change_maps
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.encoder.preprocessing import Preprocessing
from caco_assets.pretraining.pack.build import build
from caco_assets.pretraining.pack.format import Pack

BANDS = ("B04", "B03", "B02")
SIDE = 64
BUILT = (slice(16, 32), slice(40, 56))
PERIOD = np.array([0, 0, 0, 1, 1, 1])


def encoder(architecture: str = "test_resnet") -> Encoder:
    preprocessing = Preprocessing.of_pack(BANDS, "seco", 32)
    return Encoder.random(architecture, preprocessing, seed=0).eval()


def dates(generator: np.random.Generator, *, built: bool, count: int = 6) -> np.ndarray:
    """uint8 (n, 3, H, W): a textured place whose left half changes with the season; late dates may have a new building."""
    ground = generator.integers(60, 120, (3, SIDE, SIDE))
    images = np.stack([ground + generator.integers(-4, 5, ground.shape) for _ in range(count)])
    for date, image in enumerate(images):
        image[:, :, : SIDE // 2] += 40 * (date % 3)
        if built and date >= count // 2:
            image[(slice(None), *BUILT)] += generator.integers(60, 120, (3, 16, 16))
    return np.clip(images, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("source", [encoder(), None], ids=["encoder", "pixels"])
def test_a_building_stands_out_and_the_fields_of_the_seasons_do_not(source: Encoder | None) -> None:
    generator = np.random.default_rng(0)
    changed, unchanged = (map_change(source, dates(generator, built=built), PERIOD) for built in (True, False))
    assert changed is not None
    assert unchanged is not None
    assert changed.cells.shape == (32, 32)
    assert changed.cells.dtype == np.float32
    mask = np.zeros((SIDE, SIDE), bool)
    mask[BUILT] = True
    cells = mask.reshape(32, 2, 32, 2).all((1, 3))
    assert roc_auc_score(cells.ravel(), changed.cells.ravel()) > 0.97
    assert changed.score > 2 * unchanged.score
    assert unchanged.high < changed.low <= changed.high


def test_the_map_equals_a_slow_loop_over_pairs_of_dates() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(6, 5, 4, 4, generator=generator)
    distances = pair_distances(features)
    slow = {(i, j): (features[i] - features[j]).square().mean(0).sqrt() for i, j in combinations(range(6), 2)}
    for (i, j), expected in slow.items():
        torch.testing.assert_close(distances[i, j], expected, rtol=1e-4, atol=1e-5)
    for without in (None, 2):
        used = {pair: value for pair, value in slow.items() if without not in pair}
        long = torch.stack([value for (i, j), value in used.items() if PERIOD[i] != PERIOD[j]]).amin(0)
        short = torch.stack([value for (i, j), value in used.items() if PERIOD[i] == PERIOD[j]]).mean(0)
        torch.testing.assert_close(season_robust(distances, PERIOD, without), long / (short + 0.2), rtol=1e-3, atol=1e-4)
    one = torch.zeros(1, 5, 5)
    one[0, 0, 0] = 9
    assert smoothed(one, 3)[0, 1, 1] == 1
    assert smoothed(one, 3)[0, 0, 0] == pytest.approx(9 / 4)


@pytest.mark.parametrize("period", [[0, 1], [0, 0], [1, 1, 1]])
def test_without_two_dates_in_a_period_and_one_in_the_other_there_is_no_map(period: list[int]) -> None:
    images = np.zeros((len(period), 3, 16, 16), np.uint8)
    assert map_change(None, images, np.array(period)) is None


def test_the_pixel_baselines_are_the_plain_arithmetic_that_they_say() -> None:
    images = dates(np.random.default_rng(1), built=True)
    pixels = images.astype(np.float64)
    pixels = pixels - pixels.mean((2, 3), keepdims=True)
    pixels /= np.sqrt((pixels**2).mean((2, 3), keepdims=True)) + 4
    pairs = {(i, j): np.abs(pixels[i] - pixels[j]).mean(0) for i, j in combinations(range(6), 2)}
    long = np.mean([value for (i, j), value in pairs.items() if PERIOD[i] != PERIOD[j]])
    short = np.mean([value for (i, j), value in pairs.items() if PERIOD[i] == PERIOD[j]])
    found = pixel_baselines(images, PERIOD)
    assert found["pixel_mean"].score == pytest.approx(long / short, rel=1e-4)
    assert found["pixel_min"].score == pytest.approx(place_score(found["pixel_min"].pixels))


def test_areas_and_average_precisions_are_those_of_scikit_learn_and_differences_are_paired() -> None:
    generator = np.random.default_rng(0)
    changed = np.arange(60) % 3 == 0
    good = changed + generator.normal(0, 0.5, 60)
    found = place_auroc(changed, {"good": good, "noise": generator.normal(0, 1, 60)}, seed=0)
    assert found["good"].value == pytest.approx(roc_auc_score(changed, good))
    assert found["good"].low < found["good"].value < found["good"].high
    assert found["good-noise"].low > 0
    masks = [generator.random((8, 8)) < 0.2 for _ in range(30)]
    maps = [mask + generator.normal(0, 0.7, mask.shape) for mask in masks]
    exact = average_precision_score(np.stack(masks).ravel(), np.stack(maps).ravel())
    precision = cell_average_precision(masks, {"ours": maps}, seed=0)["ours"]
    assert precision.value == pytest.approx(exact, abs=2e-3)
    assert precision.low < precision.value < precision.high
    assert place_auroc(np.ones(3, bool), {"good": np.ones(3)}, seed=0) == {}
    assert cell_average_precision([np.zeros((2, 2), bool)], {"ours": [np.zeros((2, 2))]}, seed=0) == {}
    assert cell_f1([np.array([[True, False]])], [np.array([[2.0, 2.0]])], 1.0) == pytest.approx(2 / 3)


class _Chip:
    lon = lat = 0.0

    def __init__(self, location_id: str, period: int, season: int, pixels: np.ndarray) -> None:
        self.location_id, self.period, self.season, self.pixels = location_id, period, season, pixels


@pytest.fixture
def pack(tmp_path):
    """Twelve places, of which every third has a new building; one more has too few dates for a map."""
    generator = np.random.default_rng(0)
    chips = []
    for place in range(12):
        images = dates(generator, built=place % 3 == 0).astype(np.uint16) * 15 + 1
        chips += [_Chip(f"L{place:07d}", date // 3, date % 3, image) for date, image in enumerate(images)]
    sizes = {"chip_size": SIDE, "seasons": 3, "min_seasons": 3, "total": len(chips)}
    build(iter(chips), tmp_path / "pack", bands=BANDS, archive_bands=BANDS, stretch="seco", **sizes)
    return Pack.open(tmp_path / "pack")


@pytest.fixture
def truth(tmp_path) -> MaskTruth:
    folder = tmp_path / "truth"
    folder.mkdir()
    rows = []
    for place in range(12):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[BUILT] = place % 3 == 0
        np.savez_compressed(folder / f"L{place:07d}.npz", change=mask)
        kind = "urban_growth" if mask.any() else ""
        rows.append({"location_id": f"L{place:07d}", "changed": bool(mask.any()), "kind": kind, "mask": f"L{place:07d}.npz"})
    pq.write_table(pa.Table.from_pylist(rows), folder / "change.parquet")
    return MaskTruth.read(folder / "change.parquet")


def write_tar(path, maps):
    path.write_bytes(b"")
    return {name: (512 * number, cells.nbytes) for number, (name, cells) in enumerate(sorted(maps.items()))}


def test_the_product_has_a_row_for_each_place_and_figures_against_the_truth(pack, truth, tmp_path, logged) -> None:
    lines, valid = logged(), pack.valid.copy()
    valid[11, 1] = False
    facts = write_change_maps(tmp_path / "maps", encoder(), replace(pack, valid=valid), truth=truth, write_tar=write_tar, seed=0)
    table = pq.read_table(tmp_path / "maps" / "change_maps.parquet")
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row["label"] for row in rows] == [1, 0, 0] * 3 + [1, 0, -1]
    assert "without a date" in rows[11]["reason"]
    assert rows[11]["score"] is None
    assert any("1 of 12 places have none" in line for line in lines)
    assert {"source": "encoder", "places": 12, "mapped": 11, "changed": 4, "georeferenced": 11}.items() <= facts.items()
    assert facts["place_auroc_change_map"] == 1.0
    # a random network of one layer, and one cell in fifty has changed
    assert facts["cell_ap_change_map"] > 0.3
    figures = json.loads((tmp_path / "maps" / "figures.json").read_text())
    assert figures["kinds"] == {"urban_growth": {"places": 4, "found": 1.0}}
    assert figures[f"place_auroc_{OURS}-pixel_min"].keys() == {"value", "low", "high"}
    for name in ("gallery.png", "histogram.png"):
        assert (tmp_path / "maps" / name).read_bytes().startswith(b"\x89PNG")


def test_without_truth_or_feature_levels_the_maps_are_made_all_the_same_and_said_to_be_of_pixels(pack, tmp_path, logged) -> None:
    lines = logged()
    facts = write_change_maps(tmp_path / "maps", encoder("test_convnext"), pack, truth=None, write_tar=write_tar, seed=0)
    assert facts["source"] == "pixels"
    assert facts["changed"] == 4
    assert "place_auroc_change_map" not in facts
    assert any("made from pixels, not from the encoder" in line for line in lines)


def test_a_place_of_the_gallery_is_shown_once_with_the_errors_among_the_others(pack, truth) -> None:
    height = {0: 9.0, 1: 8.0, 3: 7.0, 6: 6.0, 2: 3.0, 9: 0.5, 4: 0.4}  # 0, 3, 6, 9 have changed
    maps = [(place, np.full((32, 32), value, np.float32)) for place, value in height.items()]
    shown = {title: [place for place, _ in ones] for title, ones in _blocks(pack, maps, 1.0, truth)}
    assert shown == {"highest scores": [0, 1, 3, 6], "missed": [9], "called changed wrongly": [2]}
    shown = {title: [place for place, _ in ones] for title, ones in _blocks(pack, maps, 1.0, None)}
    assert shown == {"highest scores": [0, 1, 3, 6], "nearest to the threshold": [9, 4, 2]}


def test_a_mask_of_another_size_or_type_is_named(truth, tmp_path) -> None:
    with pytest.raises(UserError, match=r"a boolean mask of a multiple of \(24, 24\) is needed"):
        truth.mask("L0000000", (24, 24))
    np.savez(tmp_path / "truth" / "L0000001.npz", other=np.zeros(2))
    with pytest.raises(UserError, match=r"L0000001.npz: not a mask of true change"):
        truth.mask("L0000001", (32, 32))
    np.savez(tmp_path / "truth" / "L0000002.npz", change=np.zeros(64, bool))
    with pytest.raises(UserError, match=r"holds bool \(64,\)"):
        truth.mask("L0000002", (32, 32))
    whole = (tmp_path / "truth" / "L0000003.npz").read_bytes()
    for cut in (b"", b"PK", whole[:100], whole[:-30]):
        (tmp_path / "truth" / "L0000003.npz").write_bytes(cut)
        with pytest.raises(UserError, match=r"L0000003.npz: not a mask of true change"):
            truth.mask("L0000003", (32, 32))
    assert truth.mask("L0000099", (32, 32)) is None
    pq.write_table(pa.table({"location_id": ["a"], "changed": ["no"]}), tmp_path / "words.parquet")
    with pytest.raises(UserError, match="changed='no' is not true or false"):
        MaskTruth.read(tmp_path / "words.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a table of true change"):
        MaskTruth.read(tmp_path / "bad.parquet")
