"""Settings: a wrong key or value stops with one line that names the field, the value and what is allowed."""

from __future__ import annotations

import pytest

from caco_assets.core.errors import UserError
from caco_assets.settings import load_settings, profile_names
from caco_assets.settings.load import PROFILES


def refused(**overrides) -> str:
    with pytest.raises(UserError) as caught:
        load_settings("tiny", **overrides)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch):
    for name in ("CACO_PROFILE", "CACO_HOME"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_that_ships_is_valid(name, tmp_path):
    settings = load_settings(name, home=tmp_path)
    assert settings.profile == name
    assert settings.paths.root == tmp_path / "workspace" / name


WRONG = {
    "not a number": ({"sampling": {"places": "abc"}}, ["sampling.places='abc'", "valid integer"]),
    "too small": ({"sampling": {"places": 0}}, ["sampling.places=0", "greater than or equal to 1"]),
    "not among the words": ({"pretraining": {"fidelity": "best"}}, ["pretraining.fidelity='best'", "'improved' or 'reference'"]),
    "misspelt key": ({"sampling": {"plces": 1}}, ["sampling.plces=1", "did you mean places?", "allowed: strategy"]),
    "unknown section": ({"sampler": {}}, ["sampler={}", "did you mean sampling?", "allowed: profile"]),
    "misspelt key of a task": ({"downstream": {"tasks": {"a": {"task": "eurosat", "limt": 1}}}}, ["tasks.a.limt=1", "mean limit?"]),
    "unknown source": ({"imagery": {"source": {"kind": "ftp"}}}, ["imagery.source", "'ftp'", "'stac_api'"]),
    "a source without its path": ({"imagery": {"source": {"kind": "folder"}}}, ["imagery.source.folder.path", "required"]),
    "misspelt key of a source": (
        {"imagery": {"source": {"kind": "catalog", "pth": "x"}}},
        ["imagery.source.catalog.path", "required"],
    ),
    "a month that is none": ({"vintage": "2026-13"}, ["vintage='2026-13'"]),
    "more seasons needed than wanted": (
        {"imagery": {"min_seasons": 9, "seasons": 5}},
        ["min_seasons=9", "seasons=5", "lower min_seasons"],
    ),
    "no bands": ({"imagery": {"bands": []}}, ["imagery.bands=[]", "at least 1"]),
    "a band twice": ({"imagery": {"bands": ["B04", "B03", "B02", "B02"]}}, ["B02 is listed twice"]),
    "a band to train on that is not read": (
        {"pretraining": {"bands": ["B11"]}, "imagery": {"bands": ["B02", "B03"]}},
        ["pretraining.bands: B11", "not among imagery.bands", "add it there"],
    ),
    "a band to train on that is not packed": (
        {"pretraining": {"bands": ["B04", "B08"], "pack_bands": ["B04"]}},
        ["bands: B08", "not among pack_bands (B04)", "add it there"],
    ),
    "processes that nobody starts": (
        {"pretraining": {"processes": 2}},
        ["processes=2", "launcher=inline", "set launcher to torchrun or ray", "or processes to 1"],
    ),
    "machines that nobody reaches": (
        {"pretraining": {"launcher": "torchrun", "processes": 2, "nodes": 2}},
        ["nodes=2", "launcher=torchrun", "set launcher to ray"],
    ),
    "a band that the files lack": (
        {"imagery": {"bands": ["B02", "B08"], "source": {"kind": "folder", "path": "x", "bands": ["B02", "B03", "B04"]}}},
        ["bands: B08", "source.bands"],
    ),
    "periods that overlap": ({"gap_years": 1, "imagery": {"period_months": 24}}, ["period_months=24", "gap_years=1", "at most 12"]),
    "a crop scale the wrong way round": ({"pretraining": {"crop_scale": [1.0, 0.2]}}, ["crop_scale=1, 0.2", "the smaller first"]),
    "a section that is no mapping": ({"sampling": 3}, ["sampling=3"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_allowed(case):
    overrides, said = WRONG[case]
    line = refused(**overrides)
    assert line.startswith("profile tiny: ")
    for part in said:
        assert part in line


def test_an_unknown_profile_lists_those_there_are():
    with pytest.raises(UserError, match="profile=small: there is no such profile; choose one of boadella, embedded"):
        load_settings("small")


def test_a_profile_may_be_a_file_of_ones_own(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sampling: {places: 7}\n")
    settings = load_settings(str(path), home=tmp_path)
    assert (settings.profile, settings.sampling.places) == ("mine", 7)


@pytest.mark.parametrize(("text", "said"), [("a: [", "not readable as YAML"), ("- 1", "a profile is a mapping")])
def test_a_file_that_is_no_profile_says_so(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as caught:
        load_settings(str(path), home=tmp_path)
    assert "\n" not in str(caught.value)


def test_the_environment_wins_over_the_profile_and_over_overrides(monkeypatch, tmp_path):
    monkeypatch.setenv("CACO_SAMPLING__PLACES", "5")
    assert load_settings("tiny", home=tmp_path, sampling={"places": 6}).sampling.places == 5


def test_a_wrong_value_of_the_environment_names_the_variable(monkeypatch):
    monkeypatch.setenv("CACO_SAMPLING__PLACES", "many")
    assert refused().startswith("profile tiny with CACO_SAMPLING__PLACES: sampling.places='many'")


@pytest.mark.parametrize(
    ("name", "hint"), [("CACO_SAMPLNG__PLACES", "did you mean CACO_SAMPLING?"), ("CACO_VINTGE", "did you mean CACO_VINTAGE?")]
)
def test_a_misspelt_variable_is_not_ignored(monkeypatch, name, hint):
    monkeypatch.setenv(name, "3")
    assert f"{name}=3: no such setting; {hint}" in refused()


def test_a_variable_of_another_purpose_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("CACO_GOLDEN", "/somewhere")
    assert load_settings("tiny", home=tmp_path).profile == "tiny"


def test_a_list_in_the_environment_must_be_json(monkeypatch):
    monkeypatch.setenv("CACO_DOWNSTREAM__SEEDS", "1,2")
    assert refused().startswith("CACO_DOWNSTREAM__SEEDS=1,2: a list or a section is written as JSON")


def test_a_path_may_name_a_variable_which_must_be_set(monkeypatch, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text('downstream: {tasks: {a: {task: eurosat, data: "${MY_DATA}/a.zip"}}}\n')
    with pytest.raises(UserError, match="MY_DATA is not set in the environment"):
        load_settings(str(path), home=tmp_path)
    monkeypatch.setenv("MY_DATA", "/data")
    assert str(load_settings(str(path), home=tmp_path).downstream.tasks["a"].data) == "/data/a.zip"


def test_settings_are_frozen(settings):
    with pytest.raises(Exception, match="frozen"):
        settings.sampling.places = 3


def test_another_kind_of_source_keeps_nothing_of_the_old_one(tmp_path):
    source = load_settings("tiny", home=tmp_path, imagery={"source": {"kind": "catalog", "path": "x"}}).imagery.source
    assert source.kind == "catalog"


@pytest.mark.parametrize(("places", "per_shard", "shards"), [(12, 6, 2), (13, 6, 3), (1, 500, 1)])
def test_the_last_shard_may_be_short(tmp_path, places, per_shard, shards):
    settings = load_settings("tiny", home=tmp_path, sampling={"places": places, "places_per_shard": per_shard})
    assert settings.shards == shards


@pytest.mark.parametrize("name", sorted(path.stem for path in PROFILES.glob("*.yaml")))
def test_every_profile_of_the_package_loads(name: str) -> None:
    assert load_settings(name).profile == name


def test_the_published_configuration_has_the_published_sizes() -> None:
    one, many = load_settings("paper_100k"), load_settings("paper_1m")
    for settings, images in ((one, 100_000), (many, 1_000_000)):
        assert settings.sampling.places * 2 * settings.imagery.seasons == images
        given = settings.pretraining
        assert (given.batch_size, given.queue_size, given.temperature, given.momentum) == (256, 16_384, 0.07, 0.999)
        assert (given.learning_rate, given.epochs, given.image_size, settings.imagery.chip_size) == (0.03, 200, 224, 264)
