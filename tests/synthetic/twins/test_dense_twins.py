"""Twins with a class for each pixel: the same bytes each time, and masks that are true."""

import zipfile
from datetime import UTC, datetime
from hashlib import sha256
from importlib import import_module

import numpy as np
import pytest

from caco_assets.synthetic.stage import TWINS
from caco_assets.synthetic.twins import dense_scenes as scenes
from caco_assets.synthetic.twins.growth import pair

DENSE = ("oscd", "dynamicearthnet", "levir_cd", "whu_cd", "loveda", "potsdam", "vaihingen")


def hashes(folder):
    return {path.relative_to(folder): sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("task", DENSE)
def test_a_twin_has_the_same_bytes_each_time_and_others_for_another_seed(task, tmp_path):
    assert TWINS[task] == task
    write = import_module(f"caco_assets.synthetic.twins.{task}").write_twin
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert write(tmp_path / name, seed, 10)
    first = hashes(tmp_path / "a")
    assert first
    assert first == hashes(tmp_path / "b")
    assert first != hashes(tmp_path / "c")


def test_what_was_built_is_visible_and_nothing_else_counts_as_growth():
    shares, contrast = [], []
    for number in range(6):
        before, after, mask, _ = pair(0, "test growth", number, 96, 96)
        assert set(np.unique(mask)) <= {0, 255}
        shares.append((mask > 0).mean())
        if 0 < shares[-1] < 1:
            moved = np.abs(after.astype(int) - before).mean(axis=0)
            contrast.append(moved[mask > 0].mean() > moved[mask == 0].mean())
    assert 0.02 < np.mean(shares) < 0.35
    assert np.mean(contrast) > 0.6


def test_events_change_cover_where_the_mask_says_and_only_then():
    first, last = datetime(2015, 6, 1, tzinfo=UTC), datetime(2018, 6, 1, tzinfo=UTC)
    changed = []
    for number in range(6):
        where = scenes.place(0, "test events", number, 60, 72, (first, last))
        view = where.view()
        assert scenes.cover(where, view, first).shape == (60, 72)
        changed.append((scenes.cover(where, view, first) != scenes.cover(where, view, last)).mean())
        still = scenes.place(0, "test events", number, 60, 72)
        assert (scenes.cover(still, still.view(), first) == scenes.cover(still, still.view(), last)).all()
    assert np.mean(changed) > 0.03
    assert max(changed) < 0.5


def test_the_zips_of_oscd_hold_what_the_authors_ship(tmp_path):
    from caco_assets.synthetic.twins.oscd import BANDS, write_twin

    write_twin(tmp_path, 0, 10)
    root = "Onera Satellite Change Detection dataset - Images"
    with zipfile.ZipFile(tmp_path / f"{root}.zip") as archive:
        names = set(archive.namelist())
        cities = archive.read(f"{root}/train.txt").decode().strip().split(",")
    assert {f"{root}/{cities[0]}/imgs_{date}_rect/{band}.tif" for date in (1, 2) for band in BANDS} <= names
    assert f"{root}/{cities[0]}/dates.txt" in names
