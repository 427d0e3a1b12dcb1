"""`caco archive ls` and `caco archive verify` as a user meets them."""

import json

import pytest
from click.testing import CliRunner

from caco_assets.cli import main
from caco_assets.core.errors import UserError
from caco_assets.imagery.archive.listing import list_chips, list_shards
from caco_assets.imagery.archive.shard import TAR, read_index


@pytest.fixture
def caco(tmp_path, small_archive, monkeypatch):
    """Runs `caco …` on a home whose archive is the small one."""
    monkeypatch.setenv("CACO_HOME", str(tmp_path / "home"))
    place = tmp_path / "home" / "workspace" / "tiny" / "data" / "archive"
    place.parent.mkdir(parents=True)
    small_archive.rename(place)
    return lambda *words: CliRunner().invoke(main, [*words, "--profile", "tiny"])


def test_a_line_for_each_shard_and_one_for_all(small_archive):
    lines = [str(one) for one in list_shards(small_archive)]
    assert [line.split(", ")[0] for line in lines] == ["shard=0000: 4 chips of 1 places", "shard=0001: 4 chips of 1 places"]
    assert lines[0].endswith("0 refused, 2018-01-01 to 2022-04-01")


def test_chips_of_a_shard_come_in_the_order_of_its_tar(small_archive):
    rows = list_chips(small_archive, 1)
    assert [row["id"] for row in rows] == ["L0000012-p0s0", "L0000012-p0s2", "L0000012-p1s0", "L0000012-p1s2"]
    with pytest.raises(UserError, match=r"shard=7: not in .*\(there: shard=0000 to shard=0001\)"):
        list_chips(small_archive, 7)
    with pytest.raises(UserError, match=r"\(there: none\)"):
        list_chips(small_archive / "absent", 0)


def test_ls_shows_shards_chips_and_json(caco):
    shown = caco("archive", "ls").stdout.splitlines()
    assert shown[-1].startswith("2 shards: 8 chips of 2 places")
    assert json.loads(caco("archive", "ls", "--json").stdout.splitlines()[1])["shard"] == "shard=0001"
    chips = caco("archive", "ls", "--shard", "1").stdout.splitlines()
    assert chips[0].startswith("L0000012-p0s0  2018-01-01  S2_0  EPSG:32631  clear 95%  512+")
    assert json.loads(caco("archive", "ls", "--shard", "1", "--json").stdout.splitlines()[0])["period"] == 0


def test_verify_says_what_is_damaged_with_status_1_and_repair_forgets_the_shard(caco, tmp_path):
    root = tmp_path / "home" / "workspace" / "tiny"
    done = caco("archive", "verify")
    assert (done.exit_code, done.stdout) == (0, "every chip is what its index says\n")
    shard = root / "data" / "archive" / "shard=0001"
    row = read_index(shard).to_pylist()[0]
    with (shard / TAR).open("r+b") as stream:
        stream.seek(row["offset"] + 9)
        stream.write(b"spoilt")
    records = root / "records" / "archive"
    records.mkdir(parents=True)
    for name in ("shard=0000", "shard=0001"):
        (records / f"{name}.json").write_text("{}")
    done = caco("archive", "verify")
    assert done.exit_code == 1
    assert "shard=0001: L0000012-p0s0 is not what its index says (sha256)\n" in done.stderr
    assert "--repair" in done.stderr
    done = caco("archive", "verify", "--repair")
    assert done.exit_code == 1
    assert "forgotten: shard=0001" in done.stderr
    assert [path.stem for path in records.iterdir()] == ["shard=0000"]
