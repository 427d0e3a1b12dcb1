"""Chips over HTTP: the same bytes as from the disk, with few requests, bounded memory, and a reason for what cannot be read."""

import threading
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio

from caco_assets.core.errors import UserError
from caco_assets.imagery.geometry.chip_grid import Grid
from caco_assets.imagery.ingest.fill_shard import Concurrency
from caco_assets.imagery.on_record import ingest_shard, plan
from caco_assets.imagery.reading.gdal import UnreadableError
from caco_assets.imagery.reading.http.cog_reader import Budget, RemoteFiles, _plan
from caco_assets.imagery.reading.http.range_client import Fetcher, RetryPolicy
from caco_assets.imagery.reading.http.tiff_index import read_index
from caco_assets.imagery.reading.resample import read_grid

pytestmark = pytest.mark.integration

DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")
LEFT, TOP, EPSG = 498_000.0, 4_651_020.0, 32631


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def far(tiny_earth, over, serving):
    """Settings over the tiny Earth as a provider serves it, its twin on disk, and the provider."""
    for number, date in enumerate(DATES):
        tiny_earth.scene(date, reflectance=0.05 + 0.01 * number)
    tiny_earth.scene("2022-04-25", cloud=0.0, scl=9)
    near = over(tiny_earth.write(), home="near")
    with serving(tiny_earth.folder, patience=0.6) as provider:
        for item in tiny_earth.items:
            for asset in item["assets"].values():
                asset["href"] = f"{provider.address}/{asset['href'].removeprefix('./')}"
        tiny_earth.folder = tiny_earth.folder.parent / "index"
        far = over(tiny_earth.write(), home="far")
        for settings in (near, far):
            plan(settings)
        yield far, near, provider


def test_chips_over_http_are_those_from_the_disk_bit_by_bit(far):
    far, near, provider = far
    for settings in (far, near):
        for shard in (0, 1):
            ingest_shard(settings, shard)
    assert contents(far.paths.archive) == contents(near.paths.archive)
    assert provider.stats()["GET"] > 0


def test_the_bands_of_a_cloudy_scene_are_never_asked_for(far):
    far, _, provider = far
    provider.fail(kinds="500", match="S2_20220425/B")
    ingest_shard(far, 0)
    rows = pq.read_table(far.paths.archive / "shard=0000" / "quarantine.parquet").to_pylist()
    assert {(row["reason"], row["item_id"]) for row in rows} == {("cloudy", "S2_20220425")}
    assert provider.stats()["failed 500"] == 0


@pytest.fixture
def hasty(monkeypatch):
    """No long waits between attempts."""
    monkeypatch.setattr("caco_assets.imagery.ingest.fill_shard.Concurrency", partial(Concurrency, patience=HASTE))


HASTE = RetryPolicy(attempts=3, first_wait_s=0.01, longest_wait_s=0.05, silence_s=0.3, slowest_bytes_per_s=1e6)


def test_a_silent_provider_stops_the_shard_and_the_next_run_resumes(far, over, hasty):
    far, near, provider = far
    ingest_shard(near, 0)
    ingest_shard(far, 0)
    whole = provider.stats()["requests"]
    other = over(far.imagery.source.path, home="again")
    plan(other)
    provider.fail(kinds="503", after=whole * 2 // 3)
    with pytest.raises(UserError, match=r"does not serve its files .* continues"):
        ingest_shard(other, 0)
    left = [path.name for path in other.paths.archive.iterdir()]
    assert len(left) == 1
    assert left[0].endswith(".spool")
    provider.fail()
    provider.stats()
    ingest_shard(other, 0)
    assert contents(other.paths.archive) == contents(near.paths.archive)
    assert provider.stats()["requests"] < whole


def test_failures_in_one_request_of_ten_leave_no_trace(far, monkeypatch):
    far, near, provider = far
    longer = replace(HASTE, attempts=8)
    monkeypatch.setattr("caco_assets.imagery.ingest.fill_shard.Concurrency", partial(Concurrency, patience=longer))
    provider.fail(kinds="403,429,500,503,silence,reset,truncated,slow,html,xml", share=0.1, seed=3)
    for shard in (0, 1):
        ingest_shard(near, shard)
        ingest_shard(far, shard)
    assert contents(far.paths.archive) == contents(near.paths.archive)
    assert sum(number for name, number in provider.stats().items() if name.startswith("failed ")) >= 5


@pytest.mark.parametrize(
    ("kind", "reason"), [("403", "forbidden"), ("500", "server_error"), ("silence", "timeout"), ("html", "error_page")]
)
def test_one_file_that_is_never_served_refuses_its_chips_and_the_next_scene_serves(far, hasty, kind, reason):
    far, _, provider = far
    provider.fail(kinds=kind, match="S2_20220405/B03")
    ingest_shard(far, 0)
    rows = pq.read_table(far.paths.archive / "shard=0000" / "quarantine.parquet").to_pylist()
    assert {row["reason"] for row in rows} == {reason, "cloudy", "too_few_seasons"}
    refused = [row for row in rows if row["reason"] == reason]
    assert {row["item_id"] for row in refused} == {"S2_20220405"}
    assert all(row["detail"].startswith("B03.tif: ") for row in refused)
    assert "127.0.0.1" not in refused[0]["detail"]


# ---------------------------------------------------------------------------------------------- one file


def grid(left: float, top: float, size: int = 64) -> Grid:
    return Grid(EPSG, LEFT + left, TOP - top, size, 10.0)


@pytest.fixture
def files(tmp_path, serving):
    """Remote files of a folder, and the provider."""
    with serving(tmp_path) as provider, Fetcher(4, patience=HASTE) as fetcher:
        yield RemoteFiles(fetcher, str), provider


def read(files: RemoteFiles, href: str, *grids: Grid, bands=(1,)) -> list:
    """Pixels or refusals of some chips of a file."""
    found = []
    with files.open({href: list(bands)}, grids) as opened:
        for one in grids:
            try:
                if isinstance(opened[href], UnreadableError):
                    raise opened[href]
                found.append(opened[href].read(list(bands), one, nearest=False, nodata=0))
            except UnreadableError as error:
                found.append((error.reason, error.detail))
    return found


def random_tif(tmp_path, tif, **profile) -> np.ndarray:
    layers = np.random.default_rng(0).integers(1, 4000, (1, 480, 480), dtype=np.uint16)
    tif(tmp_path / "a.tif", layers, LEFT, TOP, 10, **profile)
    return layers[0]


def test_neighbouring_blocks_come_in_one_request_and_shared_ones_once(files, tmp_path, tif):
    layer = random_tif(tmp_path, tif, blockxsize=64, blockysize=64)
    files, provider = files
    chips = [grid(640, 640), grid(960, 640), grid(640, 960)]
    found = read(files, f"{provider.address}/a.tif", *chips)
    for one, (at, across) in zip(found, [(64, 64), (64, 96), (96, 64)], strict=True):
        assert (one[0] == layer[at : at + 64, across : across + 64]).all()
    # 64 px blocks of 7 KiB in rows of 8: one request for the index, one for each of the three rows that the chips touch
    assert provider.stats()["requests"] == 4
    read(files, f"{provider.address}/a.tif", grid(50, 50, size=32))
    assert provider.stats()["requests"] == 1  # the index is known


def test_an_index_beyond_the_first_bytes_is_read_in_a_second_request(files, tmp_path, tif):
    layer = np.random.default_rng(0).integers(1, 4000, (1, 1600, 1600), dtype=np.uint16)
    tif(tmp_path / "a.tif", layer, LEFT, TOP, 10, blockxsize=16, blockysize=16)  # 10 000 blocks
    files, provider = files
    [found] = read(files, f"{provider.address}/a.tif", grid(5000, 6000))
    assert (found[0] == layer[0, 600:664, 500:564]).all()


def test_a_file_cut_off_at_its_source_refuses_the_chips_beyond_and_serves_the_others(files, tmp_path, tif):
    layer = random_tif(tmp_path, tif, copy_src_overviews=False)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: len(whole) // 2])
    files, provider = files
    good, bad = read(files, f"{provider.address}/a.tif", grid(0, 0), grid(4000, 4000))
    if isinstance(good, tuple):  # the index stood at the end of the file
        assert good == bad
    else:
        assert (good[0] == layer[:64, :64]).all()
    assert bad[0] == "unreadable"
    assert bad[1].startswith("a.tif: the file ")


def test_a_damaged_block_is_fetched_once_more_and_then_refuses_its_chips(files, tmp_path, tif):
    layer = random_tif(tmp_path, tif)
    data = bytearray((tmp_path / "a.tif").read_bytes())
    index = read_index(bytes(data))
    at = int(index.offsets[0])
    data[at : at + 40] = b"\xff" * 40
    (tmp_path / "a.tif").write_bytes(bytes(data))
    files, provider = files
    good, bad = read(files, f"{provider.address}/a.tif", grid(2000, 2000), grid(0, 0))
    assert (good[0] == layer[200:264, 200:264]).all()
    assert bad == ("unreadable", "a.tif: a block cannot be decoded")


def test_a_file_replaced_since_its_index_was_read_is_read_again(files, tmp_path, tif):
    random_tif(tmp_path, tif)
    files, provider = files
    href = f"{provider.address}/a.tif"
    read(files, href, grid(0, 0))
    layer = np.random.default_rng(5).integers(1, 60_000, (1, 480, 480), dtype=np.uint16)
    # written in place: the server keeps the file open
    tif(tmp_path / "b.tif", layer, LEFT, TOP, 10, compress="lzw")
    (tmp_path / "a.tif").write_bytes((tmp_path / "b.tif").read_bytes())
    [found] = read(files, href, grid(0, 0))
    assert (found[0] == layer[0, :64, :64]).all()


def test_a_chip_beyond_the_edge_is_refused_without_reading_a_block(files, tmp_path, tif):
    random_tif(tmp_path, tif)
    files, provider = files
    [found] = read(files, f"{provider.address}/a.tif", grid(10_000, 0))
    assert found == ("outside_footprint", "the chip reaches beyond the edge of the image")
    assert provider.stats()["requests"] == 1


def test_another_projection_is_warped_from_just_the_blocks_it_needs(files, tmp_path):
    from affine import Affine

    layers = np.random.default_rng(1).integers(1, 4000, (1, 900, 900), dtype=np.uint16)
    profile = {"driver": "GTiff", "crs": "EPSG:4326", "transform": Affine(1e-4, 0, 2.96, 0, -1e-4, 42.03), "nodata": 0}
    shape = {"count": 1, "height": 900, "width": 900, "dtype": "uint16", "tiled": True, "blockxsize": 64, "blockysize": 64}
    with rasterio.open(tmp_path / "a.tif", "w", **profile, **shape, compress="deflate") as raster:
        raster.write(layers)
    files, provider = files
    chip = grid(2000, 2000)
    [found] = read(files, f"{provider.address}/a.tif", chip)
    with rasterio.open(tmp_path / "a.tif") as raster:
        assert (found == read_grid(raster, [1], chip, nearest=False, nodata=0)).all()
    assert provider.stats()["bytes"] < (tmp_path / "a.tif").stat().st_size / 4


def test_a_picture_of_another_format_is_left_to_gdal(files, tmp_path):
    layers = np.random.default_rng(1).integers(1, 4000, (1, 480, 480), dtype=np.uint16)
    from affine import Affine

    profile = {"crs": f"EPSG:{EPSG}", "transform": Affine(10, 0, LEFT, 0, -10, TOP), "dtype": "uint16"}
    with rasterio.open(
        tmp_path / "a.jp2", "w", driver="JP2OpenJPEG", reversible=True, quality=100, **profile, count=1, height=480, width=480
    ) as raster:
        raster.write(layers)
    files, provider = files
    [found] = read(files, f"{provider.address}/a.jp2", grid(2000, 2000))
    assert (found[0] == layers[0, 200:264, 200:264]).all()


def test_no_more_bytes_are_held_than_the_budget_allows():
    budget, held, most = Budget(100), [0], [0]
    lock = threading.Lock()

    def work(size: int) -> None:
        with budget.hold(size):
            with lock:
                held[0] += size
                most[0] = max(most[0], held[0])
            time.sleep(0.002)
            with lock:
                held[0] -= size

    threads = [threading.Thread(target=work, args=(size,)) for size in [30, 40, 60, 20, 90, 10] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert most[0] <= 100
    with budget.hold(500):  # alone, anything passes
        pass


def test_a_plan_joins_runs_across_small_gaps_only(tmp_path, tif):
    random_tif(tmp_path, tif, compress=None)
    index = read_index((tmp_path / "a.tif").read_bytes())
    near, far = _plan(index, [1], [grid(0, 0)], 0), _plan(index, [1], [grid(0, 0), grid(4000, 4000)], 0)
    assert near.numbers.tolist() == [0, 1, 15, 16]
    assert len(near.spans) == 2  # 13 blocks of 2 KiB between the two rows
    assert near.size() == 4 * 2048
    assert len(far.spans) == 2 + 3  # 400 to 464: three rows of blocks
