"""Names of profiles, score rows, encoders and models that would break a file, a folder or a server: refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from caco_assets.core.errors import UserError
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.settings import load_settings
from caco_assets.settings.load import profile_names
from caco_assets.settings.names import why_not, why_not_profile

BROKEN = (
    "a]b", "a: b", "#x", "a${HOME}", "..", ".", "a/b", "a b", "-x", "a<b>", "ä", "a\n", "", "a" * 65, "a,b", "{a}", "*", "a@b",
)  # fmt: skip
RESERVED = ("dvc", "logs", "mlflow", "dagster", "MLflow")
READ_OTHERWISE = ("true", "null", "no", "1_000", "0x1f", "010", "1e3", "0b_", "2026-13-45", "0o17", "1.50", "True")


@pytest.mark.parametrize("name", [*BROKEN, *RESERVED, *READ_OTHERWISE])
def test_a_profile_is_refused_by_its_name(name: str) -> None:
    assert why_not_profile(name) is not None


@pytest.mark.parametrize("name", ["a]b", "a: b", "#x", "a${HOME}", "..", "dvc", "MLflow", "true"])
def test_the_message_names_the_file_and_what_to_do_and_nothing_is_written(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text("{}")
    home = tmp_path / "home"
    with pytest.raises(UserError, match="rename the file") as refused:
        load_settings(str(file), home=home)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not home.exists()


@pytest.mark.parametrize("name", [*profile_names(), "a.b", "2026", "2026-11", "My_Region-2", "None"])
def test_ordinary_profiles_are_accepted_and_their_dvc_yaml_is_read_back(tmp_path: Path, name: str) -> None:
    file = tmp_path / f"{name}.yaml"
    file.write_text("{}")
    settings = load_settings(str(file), home=tmp_path / "home")
    ensure_home(settings)
    pipeline = yaml.safe_load((tmp_path / "home" / "dvc.yaml").read_text())
    assert [str(each) for each in pipeline["vars"][0]["profiles"]] == [name]


NUMBERLIKE = st.text("0123456789._-eExXoOabn", min_size=1, max_size=6)


@given(st.text(max_size=70) | NUMBERLIKE)
def test_a_name_that_is_accepted_is_one_folder_and_one_plain_word_of_yaml(name: str) -> None:
    if why_not_profile(name) is None:
        assert Path("/workspace", name).resolve().parent == Path("/workspace")
        # as other tools and as DVC read it
        for read in (yaml.safe_load, lambda text: parse_yaml(text, "dvc.yaml")):
            assert str(read(f"profiles: [{name}]")["profiles"][0]) == name
    if why_not(name) is None:
        assert name.isascii()
        assert not set(name) & set("<>/\\'\"${}[]()@:;|&# \n")


@pytest.mark.parametrize("row", ["a<b", "a/b", "a b|c", "..", "", "x" * 65])
def test_a_score_row_is_refused_before_training(tmp_path: Path, row: str) -> None:
    with pytest.raises(UserError, match="a name has at most") as refused:
        load_settings("tiny", home=tmp_path, downstream={"tasks": {row: {"task": "eurosat"}}})
    assert "downstream" in str(refused.value)


def test_an_encoder_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a name has at most"):
        load_settings("tiny", home=tmp_path, downstream={"encoders": ["../other"]})


@pytest.mark.parametrize("model", ["a/b", "a:b", "a@champion", "", "a<b>", "a\nb"])
def test_a_model_that_mlflow_would_refuse_after_training_is_refused_before(tmp_path: Path, model: str) -> None:
    with pytest.raises(UserError, match="MLflow's addresses"):
        load_settings("tiny", home=tmp_path, registry={"model": model})


def test_a_model_that_another_team_has_named_is_accepted(tmp_path: Path) -> None:
    assert load_settings("tiny", home=tmp_path, registry={"model": "EO encoder (v2)"}).registry.model == "EO encoder (v2)"
