import pickletools
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import ARCHIVE, Encoder
from caco_assets.registry.aliases.alias_moves import alias_writer
from caco_assets.registry.aliases.champion import promote, rollback
from caco_assets.registry.package.mlflow_model import load_encoder, probe
from caco_assets.registry.register import Registered, register_encoder
from caco_assets.registry.stage import decide, decide_version
from caco_assets.registry.versions import aliases, find, local_lock, unscored, versions
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

# raised while MLflow's own modules are imported: its database's and its own types'
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]

Maker = Callable[[int], Path]
MODEL = "caco-tiny"
DATA = {"pack": "0123456789abcdef0123456789abcdef.dir"}


@pytest.fixture
def tracking(mlflow_settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracking:
    """Opened in a working directory of its own, which must stay empty."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    return open_tracking(mlflow_settings)


@pytest.fixture
def register(settings: Settings, tracking: Tracking, encoder_dir: Maker) -> Callable[[int], Registered]:
    def make(seed: int) -> Registered:
        return register_encoder(settings, encoder_dir(seed), None, DATA, tracking=tracking)

    return make


Register = Callable[[int], Registered]


def test_an_encoder_comes_back_bit_for_bit(tracking: Tracking, register: Register, encoder_dir: Maker, tmp_path: Path) -> None:
    registered = register(0)
    original = Encoder.load(encoder_dir(0))
    fmt = replace(ARCHIVE, bands=original.preprocessing.bands)
    wanted = original.features(probe(original), fmt)
    for uri in (registered.uri, f"models:/{MODEL}@challenger", str(encoder_dir(0))):
        loaded = load_encoder(uri, tracking)
        assert loaded.identity == original.identity
        np.testing.assert_array_equal(loaded.features(probe(original), fmt), wanted)
    assert list((tmp_path / "cwd").iterdir()) == []


def test_a_version_names_its_data_recipe_and_code(tracking: Tracking, register: Register, encoder_dir: Maker) -> None:
    version = find(tracking, register(0).uri)
    assert version.tags["data.pack"] == DATA["pack"]
    assert version.tags["encoder_identity"] == Encoder.load(encoder_dir(0)).identity
    assert (version.tags["vintage"], version.tags["profile"]) == ("2026-10", "tiny")
    assert "caco" in version.tags["recipe"]
    assert version.tags["code_version"]
    assert version.run_id
    assert "resnet10t" in version.description


def test_the_same_encoder_is_registered_once(tracking: Tracking, register: Register) -> None:
    first, second, third = register(0), register(1), register(0)
    assert [first.version, second.version, third.version] == ["1", "2", "1"]
    assert (first.reused, third.reused) == (False, True)
    assert len(versions(tracking, MODEL)) == 2
    assert aliases(tracking, MODEL)["challenger"] == "1"


def test_the_same_encoder_of_other_data_is_another_version(settings: Settings, tracking: Tracking, encoder_dir: Maker) -> None:
    for digest in ("a", "b", "a"):
        register_encoder(settings, encoder_dir(0), None, {"pack": digest}, tracking=tracking)
    assert len(versions(tracking, MODEL)) == 2


def test_nothing_in_a_registered_model_is_pickled(settings: Settings, register: Register) -> None:
    register(0)
    files = [path for path in (settings.paths.workspace / "mlflow" / "artifacts").rglob("*") if path.is_file()]
    assert any(path.name == "encoder.safetensors" for path in files)
    for path in files:
        assert path.suffix in {".safetensors", ".json", ".yaml", ".txt", ".py", ""}
        # a pickle starts with the opcode of its protocol
        assert path.read_bytes()[:1] != pickletools.optimize(b"\x80\x04N.")[:1]


def test_mlflow_itself_serves_the_model(tracking: Tracking, register: Register, encoder_dir: Maker) -> None:
    import mlflow

    registered, original = register(0), Encoder.load(encoder_dir(0))
    pixels, fmt = probe(original), replace(ARCHIVE, bands=original.preprocessing.bands)
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(tracking.uri)
    try:
        model = mlflow.pyfunc.load_model(registered.uri)
        np.testing.assert_array_equal(model.predict(pixels), original.features(pixels, fmt))
        swapped = model.predict(pixels[:, ::-1].copy(), params={"bands": ["B02", "B03", "B04"], "size": 64})
        np.testing.assert_array_equal(swapped, original.features(pixels, fmt, 64))
    finally:
        mlflow.set_tracking_uri(before)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("models:/nobody@champion", r"no model of that name is registered; there are: caco-tiny"),
        ("models:/caco-tiny@champion", r"no alias champion; there are: challenger"),
        ("models:/caco-tiny/7", r"no such version; there are: 1$"),
        ("models:/caco-tiny", r"not a model URI"),
        ("nowhere/at/all", r"no such folder"),
    ],
)
def test_an_unknown_address_names_what_there_is(tracking: Tracking, register: Register, uri: str, said: str) -> None:
    register(0)
    with pytest.raises(UserError, match=said):
        load_encoder(uri, tracking)


def test_a_first_challenger_that_passes_becomes_champion_and_stays_it(
    logged, settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int]
) -> None:
    register(0)
    decision = decide(settings, tracking=tracking)
    assert decision.passed, decision.text()
    assert decision.champion is None
    assert aliases(tracking, MODEL)["champion"] == "1"
    said = logged()
    assert decide(settings, tracking=tracking) == decision
    assert "already" in said[0]
    tags = find(tracking, f"models:/{MODEL}/1").tags
    assert tags["gate"] == "passed"
    assert "eurosat_twin" in tags["scores"]


def test_a_better_challenger_takes_over_and_a_rollback_brings_the_old_one_back(
    settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int], encoder_dir: Maker
) -> None:
    judged[Encoder.load(encoder_dir(1)).identity] = 180
    register(0)
    decide(settings, tracking=tracking)
    register(1)
    decision = decide(settings, tracking=tracking)
    assert (decision.passed, decision.champion) == (True, "1")
    assert aliases(tracking, MODEL) == {"challenger": "2", "champion": "2", "previous": "1"}

    move = rollback(settings, tracking, reason="hurts the harvest map")
    assert (move.after.champion, move.reason) == ("1", "hurts the harvest map")
    assert aliases(tracking, MODEL) == {"challenger": "2", "champion": "1", "previous": "2"}
    again = decide(settings, tracking=tracking)
    assert not again.passed
    assert "rollback" in again.text()
    assert aliases(tracking, MODEL)["champion"] == "1"
    with pytest.raises(UserError, match=r"was withdrawn .*hurts the harvest map"):
        rollback(settings, tracking, reason="the same alarm, seen by another")


def test_a_challenger_that_fails_its_gate_leaves_the_champion_alone(
    settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int], encoder_dir: Maker
) -> None:
    judged[Encoder.load(encoder_dir(1)).identity] = 151
    register(0)
    decide(settings, tracking=tracking)
    register(1)
    decision = decide(settings, tracking=tracking)
    assert not decision.passed
    assert aliases(tracking, MODEL) == {"challenger": "2", "champion": "1"}
    assert find(tracking, f"models:/{MODEL}/2").tags["gate"] == "failed"
    with local_lock(tracking, MODEL), alias_writer(tracking, MODEL) as mover, pytest.raises(UserError, match="not passed"):
        promote(mover, "2", "because")


@pytest.mark.parametrize("harm", ["truncated", "altered", "missing"])
def test_a_damaged_artifact_fails_the_gate(
    settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int], harm: str
) -> None:
    register(0)
    (weights,) = (settings.paths.workspace / "mlflow" / "artifacts").rglob("encoder.safetensors")
    data = bytearray(weights.read_bytes())
    if harm == "missing":
        weights.unlink()
    else:
        data[-3] ^= 0xFF
        weights.write_bytes(data if harm == "altered" else data[: len(data) // 2])
    decision = decide(settings, tracking=tracking)
    assert not decision.passed
    assert [(finding.rule, finding.passed) for finding in decision.findings] == [("artifact loads", False)]
    assert "champion" not in aliases(tracking, MODEL)


def test_of_two_decisions_at_once_one_wins(
    settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int], encoder_dir: Maker
) -> None:
    # both are better than the champion, but neither is better than the other
    for seed in (1, 2):
        judged[Encoder.load(encoder_dir(seed)).identity] = 180
    register(0)
    decide(settings, tracking=tracking)
    register(1)
    register(2)
    passed: dict[str, bool] = {}
    start = threading.Barrier(2)

    def run(version: str) -> None:
        start.wait()
        passed[version] = decide_version(settings, open_tracking(settings), version).passed

    threads = [threading.Thread(target=run, args=(version,)) for version in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = [version for version, won in passed.items() if won]
    assert len(passed) == 2
    known = aliases(tracking, MODEL)
    assert (known["champion"], known["previous"]) == (winner, "1")


def test_a_version_from_elsewhere_waits_for_its_judgement(
    settings: Settings, tracking: Tracking, register: Register, policy: Path, judged: dict[str, int]
) -> None:
    assert unscored(tracking, MODEL) == []
    register(0)
    assert unscored(tracking, MODEL) == ["1"]
    decide_version(settings, tracking, "1")
    assert unscored(tracking, MODEL) == []


def test_a_foreign_model_is_refused_with_a_reason(settings: Settings, tracking: Tracking, policy: Path, tmp_path: Path) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    (folder / "MLmodel").write_text("flavors: {sklearn: {pickled_model: model.pkl}}\n")
    tracking.client.create_registered_model(MODEL)
    tracking.client.create_model_version(MODEL, str(folder))
    decision = decide_version(settings, tracking, "1")
    assert not decision.passed
    assert "not a packaged encoder" in decision.text()
    (folder / "MLmodel").write_text("flavors: {python_function: {artifacts: {encoder: {path: ../../..}}}}\n")
    with pytest.raises(UserError, match="points outside"):
        load_encoder(f"models:/{MODEL}/1", tracking)


def test_deciding_without_a_challenger_says_what_there_is(settings: Settings, tracking: Tracking, policy: Path) -> None:
    with pytest.raises(UserError, match="there are none yet"):
        decide(settings, tracking=tracking)
