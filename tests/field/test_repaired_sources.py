"""Sources whose files are cut, empty or damaged, and then repaired: noticed by size, time and content, and tried again."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.shard import iter_chips
from caco_assets.imagery.backfill import ingest_shards
from caco_assets.imagery.ingest import fill_shard
from caco_assets.imagery.on_record import collect, ingest_shard, plan, plan_again_if_changed
from caco_assets.imagery.stage import index_folder
from caco_assets.settings import FolderSource, Settings

DATES = ("2021-12-10", "2022-04-05", "2022-08-20", "2025-12-11", "2026-04-06", "2026-08-21")


def ingest(settings: Settings, *, retry: bool = False) -> dict:
    """What `caco ingest` does."""
    plan_again_if_changed(settings)
    products = [product for _, product in ingest_shards(settings, range(2), retry=retry)]
    return {**collect(settings).facts, "made": sum(not product.reused for product in products)}


def cut(path: Path) -> bytes:
    whole = path.read_bytes()
    path.write_bytes(whole[:3000])
    return whole


def contents(settings: Settings) -> dict[str, bytes]:
    files = (path for path in sorted(settings.paths.archive.rglob("*")) if path.is_file())
    return {path.relative_to(settings.paths.archive).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def clean(six_dates, over) -> dict[str, bytes]:
    """The archive of undamaged files."""
    settings = over(six_dates.imagery.source.path, home="clean")
    plan(settings)
    ingest(settings)
    return contents(settings)


def test_cut_files_of_a_catalog_that_are_repaired_are_read_by_the_next_ingest(six_dates, clean, logged):
    paths = [six_dates.imagery.source.path / f"S2_{date.replace('-', '')}" / "B03.tif" for date in DATES[:4]]
    whole = [cut(path) for path in paths]
    plan(six_dates)
    with pytest.raises(UserError, match=r"archive: not one chip of 4 places: 16 unreadable"):
        ingest(six_dates)
    with pytest.raises(UserError, match="not one chip"):
        ingest(six_dates)
    for path, content in zip(paths, whole, strict=True):
        path.write_bytes(content)
    said = logged()
    assert ingest(six_dates)["made"] == 2
    assert "shard 0000: the files of 4 scenes have changed since it was read (S2_20211210, …): it is made again" in said
    assert contents(six_dates) == clean
    assert ingest(six_dates)["made"] == 0


def test_a_damaged_file_that_is_repaired_with_its_size_and_time_is_noticed(six_dates, clean):
    path = six_dates.imagery.source.path / "S2_20220405" / "B03.tif"
    times, whole = path.stat(), path.read_bytes()
    path.write_bytes(b"\0" * len(whole))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    plan(six_dates)
    with pytest.raises(UserError, match="not one chip"):
        ingest(six_dates)
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert ingest(six_dates)["made"] == 2
    assert contents(six_dates) == clean


def test_a_file_that_is_replaced_after_it_was_read_is_read_again_and_the_others_are_not(six_dates, tif):
    plan(six_dates)
    ingest(six_dates)
    before = {(chip.location_id, chip.period, chip.season): chip.pixels for chip in iter_chips(six_dates.paths.archive)}
    path = six_dates.imagery.source.path / "S2_20220405" / "B03.tif"
    tif(path, np.full((1, 480, 480), 4321, np.uint16), 498_000.0, 4_651_020.0, 10)
    facts = ingest(six_dates)
    assert (facts["made"], facts["chips"], facts["taken_over"]) == (2, 24, 20)
    for chip in iter_chips(six_dates.paths.archive):
        replaced = (chip.period, chip.season) == (0, 1)
        assert (chip.pixels[1] == 3321).all() == replaced, "4321 less the offset of 1000"
        assert np.array_equal(chip.pixels[0], before[chip.location_id, chip.period, chip.season][0])


def test_files_that_are_gone_leave_what_was_read_of_them(six_dates):
    plan(six_dates)
    ingest(six_dates)
    shutil.rmtree(six_dates.imagery.source.path / "S2_20220405")
    assert ingest(six_dates)["made"] == 0


def test_a_repaired_file_is_read_when_the_interrupted_run_goes_on(six_dates, clean, monkeypatch):
    path = six_dates.imagery.source.path / "S2_20220405" / "B03.tif"
    whole = cut(path)
    plan(six_dates)
    with monkeypatch.context() as patch:
        patch.setattr(fill_shard, "write_index", interrupt)
        with pytest.raises(KeyboardInterrupt):
            ingest_shard(six_dates, 0)
    path.write_bytes(whole)
    ingest(six_dates)
    assert contents(six_dates) == clean


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def folder_settings(settings: Settings, folder: Path) -> Settings:
    source = FolderSource(path=folder, bands=("B02", "B03", "B04", "B08"))
    return settings.model_copy(update={"imagery": settings.imagery.model_copy(update={"source": source})})


@pytest.fixture
def folder(six_dates, tif, tmp_path) -> Settings:
    """The folder of a user: a file of four bands for each of six dates."""
    for number, date in enumerate(DATES):
        layers = np.arange(4 * 480 * 480).reshape(4, 480, 480) % 700 + 500 + 10 * number
        tif(tmp_path / "tifs" / f"lake_{date}.tif", layers.astype(np.uint16), 498_000.0, 4_651_020.0, 10)
    return folder_settings(six_dates, tmp_path / "tifs")


def test_cut_files_of_a_folder_that_are_repaired_are_read_by_the_next_ingest(folder, logged):
    files = sorted(folder.imagery.source.path.iterdir())
    whole = {path: cut(path) for path in files[:4]}
    index_folder(folder)
    plan(folder)
    with pytest.raises(UserError, match=r"archive: not one chip of 4 places: 12 no_scene"):
        ingest(folder)
    for path, content in whole.items():
        path.write_bytes(content)
    said = logged()
    facts = ingest(folder)
    assert (facts["chips"], facts["places_complete"]) == (24, 4)
    assert "scenes: the imagery's source or the settings have changed: chosen again" in said
    assert ingest(folder)["made"] == 0


def test_a_refused_file_of_a_folder_that_is_repaired_with_its_size_and_time_is_noticed(folder):
    path = folder.imagery.source.path / f"lake_{DATES[0]}.tif"
    times, whole = path.stat(), path.read_bytes()
    path.write_bytes(b"\0" * len(whole))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert index_folder(folder).facts["refused"] == 1
    assert index_folder(folder).reused
    path.write_bytes(whole)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    found = index_folder(folder)
    assert (found.facts["refused"], found.reused) == (0, False)
    assert index_folder(folder).reused


def test_a_file_that_comes_into_the_folder_after_the_plan_is_planned_before_it_is_read(folder, tif):
    index_folder(folder)
    plan(folder)
    layers = np.full((4, 480, 480), 777, np.uint16)
    tif(folder.imagery.source.path / "lake_2022-05-01.tif", layers, 498_000.0, 4_651_020.0, 10)
    with pytest.raises(UserError, match=r"have changed since the scenes were chosen; materialize the assets `catalog`"):
        list(ingest_shards(folder, [0]))
    assert ingest(folder)["chips"] == 24


def test_a_catalog_that_is_replaced_after_the_plan_is_planned_again(six_dates, tiny_earth):
    plan(six_dates)
    tiny_earth.items.pop(1)
    tiny_earth.scene("2022-04-06", cloud=0.0)
    tiny_earth.write()
    with pytest.raises(UserError, match="have changed since the scenes were chosen"):
        list(ingest_shards(six_dates, [0]))
    assert ingest(six_dates)["chips"] == 24
    assert collect(six_dates).facts["refused"] == {}


def test_an_ingest_of_what_nothing_changed_plans_and_reads_nothing(six_dates):
    plan(six_dates)
    before = six_dates.paths.scenes.stat().st_mtime_ns
    ingest(six_dates)
    assert ingest(six_dates)["made"] == 0
    assert six_dates.paths.scenes.stat().st_mtime_ns == before


def test_a_retry_makes_only_shards_again_that_lack_chips_of_unreadable_files(six_dates, tiny_earth, over):
    tiny_earth.scene("2026-04-20", cloud=0.0)
    settings = over(tiny_earth.write(), home="retried")
    plan(settings)
    path = tiny_earth.folder / "S2_20260420" / "B03.tif"
    path.write_bytes(b"<html>503</html>")
    assert ingest(settings)["refused"] == {"error_page": 4}
    assert ingest(settings)["made"] == 0
    assert ingest(settings, retry=True)["made"] == 2
    shutil.copyfile(tiny_earth.folder / "S2_20260406" / "B03.tif", path)
    assert ingest(settings)["refused"] == {}
    assert ingest(settings, retry=True)["made"] == 0


@pytest.fixture
def caco(six_dates, tmp_path, monkeypatch):
    """Runs `caco …` on the tiny Earth."""
    monkeypatch.setattr("caco_assets.commands.imagery.settings_of", lambda _profile: six_dates)
    monkeypatch.setattr("caco_assets.commands.archive.settings_of", lambda _profile, **_options: six_dates)
    return lambda *words: CliRunner().invoke(main, list(words))


def test_the_commands_say_why_and_what_to_do(six_dates, caco):
    files = [six_dates.imagery.source.path / f"S2_{date.replace('-', '')}" / "B03.tif" for date in DATES[:4]]
    whole = [cut(path) for path in files]
    assert caco("plan").exit_code == 0
    done = caco("ingest")
    assert done.exit_code == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("caco: archive: not one chip of 4 places: 16 unreadable; the first unreadable is S2_")
    assert last.endswith("repair the files, or fetch them again, then run `caco ingest` again: it reads what has changed")
    listed = caco("archive", "ls").stdout.splitlines()
    assert "0 chips of 0 places" in listed[0]
    assert "15 refused (12 unreadable, 3 too_few_seasons)" in listed[0]
    assert "20 refused (16 unreadable, 4 too_few_seasons)" in listed[-1]
    refused = caco("archive", "ls", "--refused", "--shard", "1").stdout.splitlines()
    assert len(refused) == 5
    assert refused[0].startswith("L0000003 p0s0  S2_20211210  unreadable: B03.tif")
    for path, content in zip(files, whole, strict=True):
        path.write_bytes(content)
    assert caco("ingest").exit_code == 0
    assert "24 chips of 4 places" in caco("archive", "ls").stdout
