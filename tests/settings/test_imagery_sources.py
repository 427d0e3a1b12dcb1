"""Every kind of source is known wherever kinds are told apart."""

from typing import get_args

import pytest

from caco_assets.core.errors import UserError
from caco_assets.settings import SecoLayoutSource, Source, load_settings, profile_names


def kinds() -> set[str]:
    return {source.model_fields["kind"].default for source in get_args(get_args(Source)[0])}


def test_the_report_has_words_for_every_kind_of_source():
    from caco_assets.evaluation.report.render import _SOURCES

    assert set(_SOURCES) == kinds()


def test_every_shipped_profile_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("CACO_REAL", str(tmp_path))
    loaded = {name: load_settings(name, home=tmp_path).imagery.source.kind for name in profile_names()}
    assert set(loaded.values()) <= kinds()
    assert loaded["seco"] == "seco_layout"
    assert loaded["pucallpa"] == "folder"


def test_a_rule_for_periods_that_does_not_exist_is_named_with_the_others(tmp_path):
    with pytest.raises(UserError, match=r"periods.*'gap', 'halves' or 'calendar'"):
        load_settings("seco", home=tmp_path, imagery={"source": {"periods": "thirds"}})
    assert SecoLayoutSource().periods == "gap"


NEEDED = {"folder": {"path": "x", "bands": ["B02"]}, "catalog": {"path": "x"}, "stac_api": {"provider": "earth_search"}}


@pytest.mark.parametrize("source", get_args(get_args(Source)[0]), ids=lambda source: source.__name__)
def test_an_unknown_key_of_a_source_is_answered_with_that_sources_fields(source, tmp_path):
    kind = source.model_fields["kind"].default
    with pytest.raises(UserError, match=r"unknown key") as error:
        load_settings("tiny", home=tmp_path, imagery={"source": {"kind": kind, **NEEDED.get(kind, {}), "no_such_key": 1}})
    assert str(error.value).partition("allowed: ")[2] == ", ".join(source.model_fields)
