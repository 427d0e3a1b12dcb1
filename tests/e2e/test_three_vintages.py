"""Three months on the embedded Earth: a better encoder is promoted, one of damaged data is refused, and there is a way back.

Every run is the one that the schedule asks for, and every step is real but one: how many images a version gets right is given, for
a training that learns more than the one before takes hours.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import pytest
import rasterio
import yaml

from caco_assets.core.products import recorded
from caco_assets.downstream.score_rows import ScoreRow
from caco_assets.imagery.on_record import collect, ingest_shard, plan
from caco_assets.orchestration.schedules import monthly_retraining
from caco_assets.orchestration.sensors import drifted
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.pretraining.on_record import training_inputs
from caco_assets.pretraining.stage import pretrain
from caco_assets.registry.aliases.champion import rollback
from caco_assets.registry.lineage.restore import restore
from caco_assets.registry.package.mlflow_model import load_encoder
from caco_assets.registry.promotion.decision import Decision
from caco_assets.registry.release.release import RELEASED
from caco_assets.registry.versions import DECISION, aliases, find
from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.resources.dagster.workspace_lock import release
from caco_assets.resources.dvc.home import ensure_home
from caco_assets.resources.mlflow.client import open_tracking
from caco_assets.resources.profile import Profile
from caco_assets.resources.vintages import finished
from caco_assets.sampling.stage import sample
from caco_assets.settings import Settings, load_settings
from caco_assets.synthetic.catalog.documents import write_documents
from caco_assets.synthetic.catalog.scene_plan import Tile
from caco_assets.synthetic.catalog.scene_writer import COLLECTION
from caco_assets.synthetic.earth.earth import Earth
from caco_assets.synthetic.earth.weather import Acquisition
from caco_assets.synthetic.stage import build_catalog
from caco_assets.validation.drift.drift import accept, check_drift

# whole runs in this process: what many libraries warn of there is no more an error than it is in a daemon's
pytestmark = [pytest.mark.e2e, pytest.mark.systems, pytest.mark.filterwarnings("default")]

MONTHS = ("2026-10", "2026-11", "2026-12")
MODEL = "caco-loop"


def provider(folder: Path, scratch: Path, months: tuple[str, ...] = MONTHS) -> dict[str, set[str]]:
    """A catalog with the scenes of all months; month → the scenes that come with it."""
    new: dict[str, set[str]] = {}
    for month in months:
        settings = load_settings("tiny", home=scratch, vintage=month)
        sample(settings)
        build_catalog(settings)
        scenes = {path.name: path for path in (settings.paths.catalog / COLLECTION).iterdir() if path.is_dir()}
        new[month] = set(scenes) - set().union(*new.values())
        for name in new[month]:
            shutil.copytree(scenes[name], folder / COLLECTION / name)
    write_documents(folder, sorted(folder.glob(f"{COLLECTION}/*/*.json")), "three months")
    return new


def damage(folder: Path, scenes: set[str]) -> None:
    """The provider writes one band of these scenes in another unit."""
    for name in scenes:
        with rasterio.open(folder / COLLECTION / name / "B04.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as band:
            band.write((band.read().astype(np.uint32) * 4).clip(0, 65_535).astype(np.uint16))


def test_damage_in_the_newest_month_is_refused_by_the_name_of_its_rule(tmp_path: Path) -> None:
    """The small twin: data alone, no training."""
    new = provider(tmp_path / "provider", tmp_path / "scratch", MONTHS[:2])
    damage(tmp_path / "provider", new["2026-11"])
    verdicts = {}
    for month in MONTHS[:2]:
        source = {"kind": "catalog", "path": tmp_path / "provider"}
        settings = load_settings("tiny", home=tmp_path / "home", vintage=month, imagery={"source": source})
        sample(settings)
        plan(settings)
        for shard in range(settings.shards):
            ingest_shard(settings, shard)
        facts = collect(settings).facts
        verdicts[month] = check_drift(settings)[0].facts
    assert facts["taken_over"] > 0.7 * facts["chips"]
    assert verdicts["2026-10"]["accepted"]
    assert not verdicts["2026-11"]["accepted"]
    assert any("drift.bands.strange" in line and "B04" in line for line in verdicts["2026-11"]["findings"])

    # nothing trains on it automatically; after a manual override one run is requested
    (tmp_path / "dagster").mkdir()

    def ask() -> str | None:
        profile = Profile(name="tiny", home=str(tmp_path / "home"), vintage="2026-11")
        with (
            dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance,
            dg.build_sensor_context(instance=instance, resources={"profile": profile}) as context,
        ):
            answer = drifted(context)
        return answer.run_key if isinstance(answer, dg.RunRequest) else None

    assert ask() is None
    accept(settings, "ada", "the sensor was recalibrated")
    assert ask() == "drift-tiny-2026-11"


class Loop:
    """A workspace and its scheduler."""

    def __init__(self, profile: Path, home: Path, instance: dg.DagsterInstance) -> None:
        self.name, self.home, self.instance = str(profile), home, instance

    def settings(self) -> Settings:
        return load_settings(self.name, home=self.home)

    def month(self, vintage: str) -> Decision:
        """The tick after a month, and the run that it asks for."""
        from caco_assets.definitions import build_definitions

        year, number = (int(part) for part in vintage.split("-"))
        tick = datetime(year + number // 12, number % 12 + 1, 1, 3, tzinfo=UTC)
        given = {"profile": Profile(name=self.name, home=str(self.home))}
        with dg.build_schedule_context(instance=self.instance, scheduled_execution_time=tick, resources=given) as context:
            request = monthly_retraining(self.settings())(context)
        assert isinstance(request, dg.RunRequest), request
        job = build_definitions(self.settings(), self.name).resolve_job_def("chain")
        try:
            result = job.execute_in_process(instance=self.instance, run_config=request.run_config, tags=request.tags)
        finally:
            release()
        assert result.success
        return Decision.from_json(find(open_tracking(self.settings()), f"models:/{MODEL}@challenger").tags[DECISION])


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_mlflow: Path):
    home = tmp_path / "home"
    (home / "workspace" / "mlflow").mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, home / "workspace" / "mlflow" / "mlflow.db")
    values = yaml.safe_load((Path(__file__).parents[2] / "caco_assets" / "profiles" / "tiny.yaml").read_text())
    values["validation"] = {"drift": {"severity": "warning"}}
    values["pretraining"] |= {"warm_start": "champion", "threads": 1, "epochs": 1, "checkpoint_every": 100}
    values["downstream"] |= {"tasks": {"eurosat_twin": {"task": "eurosat", "protocols": ["clean"]}}, "baselines": ["random"]}
    values["registry"]["model"] = MODEL
    (tmp_path / "loop.yaml").write_text(yaml.safe_dump(values))
    settings = load_settings(str(tmp_path / "loop.yaml"), home=home)
    ensure_home(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(dagster_home(settings)))
    monkeypatch.chdir(home)
    with dg.DagsterInstance.get() as instance:
        yield Loop(tmp_path / "loop.yaml", home, instance)


@pytest.fixture
def fixed_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version has more images right than the one before; scoring is tested elsewhere."""
    order: list[str] = []

    def score_encoder(settings: Settings, encoder: Encoder, role: str = "candidate", **given: object) -> list[ScoreRow]:
        if role != "baseline" and encoder.identity not in order:
            order.append(encoder.identity)
        right = 100 if role == "baseline" else 130 + 20 * order.index(encoder.identity)
        items, labels = f"score_items/{role}-{right}.parquet", np.arange(200) % 10
        file = settings.paths.root / items
        file.parent.mkdir(parents=True, exist_ok=True)
        answers = np.where(np.arange(200) < right, labels, (labels + 1) % 10)
        table = {"image": [f"{k}.jpg" for k in range(200)], "label": labels, "prediction": answers}
        pd.DataFrame(table).to_parquet(file, index=False)
        row = {
            "row": "eurosat_twin", "task": "eurosat", "encoder": "caco", "role": role, "protocol": "clean", "size": 64, "seed": 0,
            "method": "linear_probe", "metric": "accuracy", "value": right / 200, "ci_low": 0.0, "ci_high": 1.0, "n": 200,
            "data_version": "v", "model_uri": None, "status": "measured", "note": "", "items": items,
        }  # fmt: skip
        return [ScoreRow(**row)]

    monkeypatch.setattr("caco_assets.registry.promotion.evidence.score_encoder", score_encoder)
    features = np.random.default_rng(0).normal(1, 1, (64, 32))
    monkeypatch.setattr("caco_assets.registry.promotion.evidence._features", lambda *_: features)


@pytest.mark.usefixtures("fixed_scores")
def test_three_months(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the first month: nobody to begin with, nothing to compare with
    first = loop.month("2026-10")
    assert first.passed, first.text()
    settings = loop.settings()
    tracking = open_tracking(settings)
    assert aliases(tracking, MODEL)["champion"] == "1"
    assert recorded(settings.paths.records, "drift").facts["reference"] is None
    then = load_encoder(f"models:/{MODEL}/1", tracking).identity

    # the second: most chips are taken over, training begins with the champion, and the result is better
    second = loop.month("2026-11")
    facts = recorded(settings.paths.records, "quarantine").facts
    assert facts["taken_over"] > 0.7 * facts["chips"]
    described = json.loads((settings.paths.encoder / "encoder.json").read_text())
    assert described["data"]["parent"] == {"uri": f"models:/{MODEL}/1", "identity": then}
    assert second.passed, second.text()
    known = aliases(tracking, MODEL)
    assert (known["champion"], known["previous"]) == ("2", "1")

    # the third would be better still, but one band of the newest scenes is damaged: the rule that refuses it is named
    provider_breaks(monkeypatch)
    third = loop.month("2026-12")
    refused = {finding.rule: finding.sentence for finding in third.failed}
    assert list(refused) == ["drift accepted"], third.text()
    assert "drift.bands.strange" in refused["drift accepted"]
    assert "B04" in refused["drift accepted"]
    assert aliases(tracking, MODEL)["champion"] == "2"
    assert {vintage: entry.promoted for vintage, entry in finished(settings).items()} == {
        MONTHS[0]: True,
        MONTHS[1]: True,
        MONTHS[2]: False,
    }

    released = {number: RELEASED in find(tracking, f"models:/{MODEL}/{number}").tags for number in "123"}
    assert released == {"1": True, "2": True, "3": False}

    # back to the first version, and to what it was made from
    assert rollback(settings, tracking, reason="a customer complains").after.champion == "1"
    assert aliases(tracking, MODEL)["champion"] == "1"
    restored = restore(settings, f"models:/{MODEL}/1", tmp_path / "then", tracking=tracking)
    assert restored.differs == ()
    there = load_settings(str(restored.profile), home=restored.home)
    pretrain(there, training_inputs(there))
    assert Encoder.load(there.paths.encoder).identity == then


def provider_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the embedded Earth's provider writes one band of new scenes in another unit."""
    from caco_assets.synthetic.catalog import scene_writer

    whole = scene_writer.write_scene

    def broken(folder: Path, tile: Tile, earth: Earth, look: Acquisition) -> Path:
        item = whole(folder, tile, earth, look)
        if f"{look.when:%Y-%m}" in ("2026-12", "2022-12"):
            damage(folder.parent, {item.parent.name})
        return item

    monkeypatch.setattr(scene_writer, "write_scene", broken)
