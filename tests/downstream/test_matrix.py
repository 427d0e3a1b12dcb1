"""The matrix of tasks and encoders, by the real registry and Dagster's own sensor, job and checks."""

import base64
import json
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from caco_assets.downstream.assets import evaluation_matrix
from caco_assets.downstream.evaluate import evaluations_file
from caco_assets.downstream.inspection.cell_figures import LIMIT
from caco_assets.downstream.score_rows import read_rows
from caco_assets.downstream.stage import score_encoder
from caco_assets.pretraining.encoder.encoder import RGB, Encoder, Preprocessing
from caco_assets.registry.encoders_resource import RegisteredEncoders
from caco_assets.registry.register import register_encoder
from caco_assets.resources.profile import Profile
from caco_assets.settings import Settings, load_settings

pytestmark = [
    # dagster asks its resources for fields by pydantic's old name
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute"),
    # its own tags of a partition with two dimensions
    pytest.mark.filterwarnings("ignore:Non-compliant tag keys like .'dagster/partition"),
]

NAME = "caco-tiny/1"


class Desk:
    """A home with one registered version and the matrix's definitions."""

    def __init__(self, settings: Settings, instance: dg.DagsterInstance) -> None:
        self.settings, self.instance = settings, instance
        self.resources = {"profile": Profile(name="tiny", home=str(settings.home)), "encoders": RegisteredEncoders()}
        self.definitions = dg.Definitions.merge(evaluation_matrix(settings), dg.Definitions(resources=self.resources))

    def tick(self) -> dg.SensorResult:
        """One look of the sensor; the columns it announces become known."""
        sensor, repository = self.definitions.resolve_sensor_def("new_encoder"), self.definitions.get_repository_def()
        # by its reference, as the daemon opens it: else the new columns are not known to the requests beside them
        wanted = {"instance": self.instance, "instance_ref": self.instance.get_ref(), "resources": self.resources}
        with dg.build_sensor_context(**wanted, repository_def=repository) as context:
            found = sensor.evaluate_tick(context)
        for request in found.dynamic_partitions_requests or []:
            self.instance.add_dynamic_partitions("encoders", list(request.partition_keys))
        return found

    def cell(self, name: str) -> dg.ExecuteInProcessResult:
        """Judge one encoder on the profile's only row."""
        key = dg.MultiPartitionKey({"task": "eurosat_twin", "encoder": name})
        job = self.definitions.resolve_job_def("evaluate_cell")
        return job.execute_in_process(instance=self.instance, partition_key=key, raise_on_error=False)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, migrated_mlflow: Path, make_eurosat) -> Iterator[Desk]:
    settings = load_settings("tiny", home=tmp_path_factory.mktemp("matrix"))
    database = settings.paths.workspace / "mlflow" / "mlflow.db"
    database.parent.mkdir(parents=True)
    shutil.copyfile(migrated_mlflow, database)
    make_eurosat(settings.paths.benchmarks / "eurosat")
    folder = settings.home / "trained"
    Encoder.random("test_resnet", Preprocessing.of_pack(RGB, "seco", 32), 5).save(folder, {}, {})
    register_encoder(settings, folder, None, {"locations": "of another workspace"})
    with dg.DagsterInstance.local_temp(str(settings.home)) as instance:
        yield Desk(settings, instance)


def evaluations(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_a_new_version_gets_its_cells_which_hold_figures_and_a_picture_and_serve_the_decision(desk: Desk) -> None:
    asked = {request.partition_key for request in desk.tick().run_requests or []}
    assert asked == {f"{name}|eurosat_twin" for name in ("random", "imagenet", "raw_statistics", NAME)}
    result = desk.cell(NAME)
    assert result.success
    (made,) = result.asset_materializations_for_node("evaluations")
    shown = {name: value.value for name, value in made.metadata.items()}
    assert shown["ci_low"] <= shown["value"] <= shown["ci_high"]
    assert (shown["metric"], shown["protocol"], shown["n"]) == ("accuracy", "clean", 20)
    assert shown["above_random"] == pytest.approx(shown["value"] - shown["random_weights"])
    assert len(shown["classes"].records) == 10
    png = base64.b64decode(re.search(r"base64,([^)]+)\)", shown["confusion"])[1])
    assert len(png) < LIMIT
    assert Image.open(BytesIO(png)).width > 300
    elsewhere = evaluations(result)["test_images_lie_elsewhere"]
    assert "its places (locations of another workspace) are not in this workspace" in elsewhere.description
    # what the cell measured is recorded as `caco evaluate` records it, and the decision measures nothing again
    rows = [row for row in read_rows(evaluations_file(desk.settings)) if row.encoder == NAME]
    assert {row.model_uri for row in rows} == {f"models:/{NAME}"}
    before = {file: file.stat().st_mtime_ns for file in (desk.settings.paths.cache / "score_rows").glob("*.json")}
    again = score_encoder(desk.settings, desk.settings.home / "trained", name="caco-tiny", model_uri=f"models:/{NAME}")
    assert [row.value for row in again] == [row.value for row in rows]
    assert {file: file.stat().st_mtime_ns for file in (desk.settings.paths.cache / "score_rows").glob("*.json")} == before
    assert f"{NAME}|eurosat_twin" not in {request.partition_key for request in desk.tick().run_requests or []}


def test_a_cell_that_cannot_be_measured_says_why(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(desk.settings.home / "torch"))
    monkeypatch.setattr("caco_assets.pretraining.encoder.encoder.try_to_load_from_cache", lambda *_: None)
    desk.tick()
    result = desk.cell("imagenet")
    assert result.success
    (made,) = result.asset_materializations_for_node("evaluations")
    assert "not in the local cache" in made.metadata["reason"].value


IMPOSSIBLE = {
    "linear_probe": ({"value": 1.7}, "value is 1.7, outside [0, 1]"),
    "knn5": ({"value": float("nan")}, "value is nan"),
    "knn20": ({"value": 0.9, "ci_low": 0.1, "ci_high": 0.3}, "the interval [0.1, 0.3] does not hold the value 0.9"),
}
FAR_BELOW = {"linear_probe": ({"value": 0.0, "ci_low": 0.0, "ci_high": 0.0}, "0.000 (up to 0.000), random weights")}


def test_a_cell_with_bad_rows_is_refused(desk: Desk) -> None:
    """The store of rows is tampered with, as a fault in a protocol would fill it."""
    desk.tick()
    desk.cell(NAME)
    stored = {file: file.read_text() for file in (desk.settings.paths.cache / "score_rows").glob("*.json")}
    for check, broken in {"numbers_are_possible": IMPOSSIBLE, "not_far_below_random": FAR_BELOW}.items():
        try:
            for file, text in stored.items():
                file.write_text(json.dumps([{**row, **_break(row, broken)} for row in json.loads(text)]))
            result = desk.cell(NAME)
        finally:
            for file, text in stored.items():
                file.write_text(text)
        found = evaluations(result)[check]
        assert not result.success
        assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
        assert all(says in found.description for _, says in broken.values())


def _break(row: dict, broken: dict[str, tuple[dict, str]]) -> dict:
    """What a row of the version's clean figures is told to say instead."""
    hers = row["role"] == "candidate" and row["protocol"] == "clean"
    return broken[row["method"]][0] if hers and row["method"] in broken else {}


def test_an_imported_encoder_is_a_column_and_where_listed_a_line_of_the_scores(tmp_path: Path, make_eurosat) -> None:
    from caco_assets.downstream.stage import score
    from caco_assets.evaluation.scorecard import scorecard

    settings = load_settings("tiny", home=tmp_path, downstream={"encoders": ["bought"], "baselines": ["random"]})
    make_eurosat(settings.paths.benchmarks / "eurosat")
    wanted = Preprocessing.of_pack(RGB, "seco", 32)
    Encoder.random("test_resnet", wanted, 5).save(settings.paths.encoder, {}, {})
    Encoder.random("test_resnet", wanted, 6).save(settings.paths.encoders / "bought", {}, {})
    card = scorecard(score(settings).path)
    section = card.find("eurosat_twin", "clean", "linear_probe")
    assert section is not None
    assert [(line.encoder, line.role) for line in sorted(section.lines, key=lambda line: line.encoder)] == [
        ("bought", "baseline"),
        ("caco", "candidate"),
        ("random", "baseline"),
    ]


def test_a_profile_without_tasks_has_no_matrix() -> None:
    assert evaluation_matrix(load_settings("seco")).assets is None


def test_examples_are_chosen_by_their_truth_alone() -> None:
    from caco_assets.downstream.datasets.tiles import Tile
    from caco_assets.downstream.metrics.example_masks import chosen

    masks = np.zeros((5, 8, 8), np.uint8)
    masks[1, :4] = 1  # mixed
    masks[2, :4] = 1  # as mixed, of the same scene
    masks[3, 0] = 1  # a little
    masks[4] = 255  # nothing counts
    tiles = [Tile(scene, 0, column) for column, scene in enumerate(("a", "b", "b", "c", "d"))]
    assert chosen(tiles, masks) == [1, 3, 0]
