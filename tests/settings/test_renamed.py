"""Settings under their old names work for one release, with a warning, and what is made of them keeps its bytes."""

import logging

import pytest

from caco_assets.core.errors import UserError
from caco_assets.settings import Automation, FineTune, SecoLayoutSource, load_settings, renamed


@pytest.fixture(autouse=True)
def _warned_of_nothing() -> None:
    renamed._warn.cache_clear()


def test_old_keys_in_a_profile_are_accepted_with_one_warning_each(tmp_path, caplog) -> None:
    path = tmp_path / "own.yaml"
    path.write_text(
        "automation: {look_cron: 0 4 * * 1}\n"
        "downstream: {fine_tune: {optimiser: sgd}, fine_tune_twin: {optimiser: sgd, epochs: 2}}\n"
        "imagery: {source: {kind: published, periods: halves}}\n"
    )
    for _ in range(2):
        with caplog.at_level(logging.WARNING, "caco_assets"):
            settings = load_settings(str(path), home=tmp_path)
    assert settings.automation.drift_check_cron == "0 4 * * 1"
    assert (settings.downstream.fine_tune.optimizer, settings.downstream.fine_tune_twin.optimizer) == ("sgd", "sgd")
    assert settings.imagery.source == SecoLayoutSource(periods="halves")
    assert caplog.messages == [
        f"{old} is now {new}; the old name works until the next release"
        for old, new in (
            ("automation.look_cron", "automation.drift_check_cron"),
            ("downstream.fine_tune.optimiser", "downstream.fine_tune.optimizer"),
            ("downstream.fine_tune_twin.optimiser", "downstream.fine_tune_twin.optimizer"),
            ("imagery.source.kind=published", "imagery.source.kind=seco_layout"),
        )
    ]


def test_old_variables_win_over_the_profile_and_are_named_in_the_warning(tmp_path, caplog, monkeypatch) -> None:
    monkeypatch.setenv("CACO_AUTOMATION__LOOK_CRON", "0 5 * * 1")
    monkeypatch.setenv("CACO_DOWNSTREAM__FINE_TUNE__OPTIMISER", "sgd")
    monkeypatch.setenv("CACO_IMAGERY__SOURCE__KIND", "published")
    path = tmp_path / "own.yaml"
    path.write_text("automation: {drift_check_cron: 0 4 * * 1}\nimagery: {source: {kind: seco_layout}}\n")
    with caplog.at_level(logging.WARNING, "caco_assets"):
        settings = load_settings(str(path), home=tmp_path)
    assert settings.automation.drift_check_cron == "0 5 * * 1"
    assert settings.downstream.fine_tune.optimizer == "sgd"
    assert settings.imagery.source == SecoLayoutSource()
    assert [line.partition(";")[0] for line in caplog.messages] == [
        "CACO_AUTOMATION__LOOK_CRON is now CACO_AUTOMATION__DRIFT_CHECK_CRON",
        "CACO_DOWNSTREAM__FINE_TUNE__OPTIMISER is now CACO_DOWNSTREAM__FINE_TUNE__OPTIMIZER",
        "CACO_IMAGERY__SOURCE__KIND=published is now CACO_IMAGERY__SOURCE__KIND=seco_layout",
    ]


def test_the_old_name_beside_the_new_one_is_an_error(tmp_path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("automation: {look_cron: 0 4 * * 1, drift_check_cron: 0 5 * * 1}\n")
    with pytest.raises(UserError, match=r"automation.look_cron='0 4 \* \* 1': unknown key"):
        load_settings(str(path), home=tmp_path)


def test_dumps_keep_the_first_names_because_fingerprints_and_records_are_made_of_them() -> None:
    assert list(FineTune().model_dump())[2] == "optimiser"
    assert Automation().model_dump_json() == (
        '{"cron":"0 3 1 * *","timezone":"UTC","missed":"latest","look_cron":null,"retrain_on_drift":"accepted"}'
    )
    assert SecoLayoutSource().model_dump(mode="json")["kind"] == "published"
    # keys of measured scores hold this text
    assert str(FineTune()) == (
        "epochs=100 batch_size=64 optimiser='adamw' learning_rates=(0.0001, 0.001) weight_decay=0.05 paper_size=224 warmup=0.05 "
        "precision='auto'"
    )


def test_what_is_shown_to_people_has_the_present_names(tmp_path) -> None:
    shown = load_settings("seco", home=tmp_path).model_dump(by_alias=False)
    assert "optimizer" in shown["downstream"]["fine_tune"]
    assert "drift_check_cron" in shown["automation"]
    assert shown["imagery"]["source"]["kind"] == "seco_layout"
