"""The laws of the house: what no single room can see."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("sampling", "imagery", "validation", "pretraining", "downstream", "evaluation", "registry")
LEARNING_CORES = (
    "pretraining.objectives",
    "pretraining.training.loop",
    "pretraining.loading.cpu_loader",
    "pretraining.encoder.encoder",
    "pretraining.pack.format",
    "downstream.probes.linear_knn",
    "downstream.metrics.bootstrap",
    "downstream.tasks",
)
# Built from parts, so that this file does not hold what it looks for.
HOSTS = (
    "py" + "pi.org",
    "python" + "hosted.org",
    "artifact" + "ory",
    "nex" + "us.",
    "index" + "-url http",
    "extra-" + "index-url =",
)
MACHINE_PATHS = ("/ro" + "ot/", "/wo" + "rk/", ".py" + "env/versions", "/home/" + "runner")


def tracked() -> list[str]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    return [name for name in names.split("\0") if name and (REPOSITORY / name).is_file()]


def python(code: str, cwd: Path = REPOSITORY, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not re.search("TELEMETRY|ANALYTICS|TRACK|USAGE", name)}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=cwd,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_folder_of_mlflow_config_does_not_hide_the_library():
    assert not (REPOSITORY / "mlflow" / "__init__.py").exists()
    assert "site-packages" in python("import importlib.util; print(importlib.util.find_spec('mlflow').origin)")


def test_dagster_reads_selection_strings():
    """hydra and omegaconf can drag antlr4 down to a version with which every selection raises TypeError."""
    import dagster as dg

    @dg.asset
    def first() -> None: ...

    @dg.asset(deps=[first])
    def second() -> None: ...

    defs = dg.Definitions(assets=[first, second])
    graph = defs.resolve_asset_graph()
    assert dg.AssetSelection.from_string("first+").resolve(graph) == {dg.AssetKey("first"), dg.AssetKey("second")}


def test_no_library_phones_home_once_the_package_is_imported():
    names = (
        "DAGSTER_DISABLE_TELEMETRY",
        "MLFLOW_DISABLE_TELEMETRY",
        "DVC_NO_ANALYTICS",
        "ITERATIVE_DO_NOT_TRACK",
        "GX_ANALYTICS_ENABLED",
        "RAY_USAGE_STATS_ENABLED",
    )
    code = f"import caco_assets, os; print([os.environ.get(name) for name in {names}])"
    assert python(code) == str(["1", "true", "1", "1", "false", "0"])


def test_a_user_may_turn_a_telemetry_switch_the_other_way():
    assert python("import caco_assets, os; print(os.environ['DVC_NO_ANALYTICS'])", DVC_NO_ANALYTICS="0") == "0"


def test_the_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter), "--no-cache"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def _lines_with(words: tuple[str, ...]) -> list[str]:
    found = []
    for name in tracked():
        try:
            text = (REPOSITORY / name).read_text()
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(text.splitlines(), 1):
            found += [f"{name}:{number}: {word}" for word in words if word in line]
    return found


def test_no_tracked_file_names_a_package_host():
    assert _lines_with(HOSTS) == []


def test_no_tracked_file_names_a_path_of_one_machine():
    assert _lines_with(MACHINE_PATHS) == []


def test_nothing_large_is_tracked():
    large = {name: (REPOSITORY / name).stat().st_size for name in tracked() if (REPOSITORY / name).stat().st_size > 1 << 20}
    assert large == {}


def import_in_a_slim_image(modules: tuple[str, ...]) -> str:
    return python(f"""
        import importlib, sys

        class Absent:
            names = ("rasterio", "geopandas", "dagster", "mlflow", "great_expectations", "dvc", "pystac")

            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in self.names:
                    raise ModuleNotFoundError(f"{{name}} is not in the slim image")

        sys.meta_path.insert(0, Absent())
        for module in {modules}:
            importlib.import_module(f"caco_assets.{{module}}")
        print("imported")
    """)


def test_what_a_learning_core_reads_runs_in_a_slim_gpu_image():
    assert import_in_a_slim_image(("pretraining.pack.format", "downstream.metrics.bootstrap", "downstream.tasks")) == "imported"


@pytest.mark.slow
def test_the_learning_cores_run_in_a_slim_gpu_image():
    assert import_in_a_slim_image(LEARNING_CORES) == "imported"


GENERATOR = ("noise", "terrain", "palette", "phenology", "spectra", "texture", "weather", "change", "earth")
"""Modules of the embedded Earth that are not writers."""


@pytest.mark.parametrize("module", GENERATOR)
def test_the_embedded_earth_needs_numpy_alone(module):
    assert (
        python(f"""
            import sys

            class NumpyAlone:
                def find_spec(self, name, path=None, target=None):
                    top = name.partition(".")[0]
                    if top not in ("numpy", "caco_assets") and top not in sys.stdlib_module_names:
                        raise ModuleNotFoundError(f"the generator imports {{name}}")

            sys.meta_path.insert(0, NumpyAlone())
            import caco_assets.synthetic.earth.{module}
            print("imported")
        """)
        == "imported"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_one_name_everywhere(room):
    assert (REPOSITORY / "caco_assets" / room / "__init__.py").exists()
    assert (REPOSITORY / "tests" / room).is_dir()
    assert list((REPOSITORY / "tests" / room).rglob("test_*.py"))
    assert (REPOSITORY / "caco_assets" / room / "stage.py").exists()


def test_the_dvc_stages_are_data_products_and_their_commands_exist():
    from caco_assets.core.stage_versions import recipe

    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for name in stages:
        if name != "settings":
            assert recipe(name)
    commands = {stage["cmd"].split()[1] for stage in stages.values()}
    from caco_assets.cli import main

    assert commands <= set(main.commands)


def test_no_test_folder_is_a_package_and_no_test_file_has_a_namesake():
    assert not list((REPOSITORY / "tests").rglob("__init__.py"))
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_every_locked_package_has_an_exact_version_and_hashes_and_no_address():
    text = (REPOSITORY / "requirements.lock").read_text()
    entries = re.split(r"\n(?=\S)", text.strip())
    packages = [entry for entry in entries if not entry.startswith("#")]
    assert len(packages) > 100
    for package in packages:
        assert re.match(r"[\w.\-\[\],]+==\S+", package), package[:80]
        assert "--hash=sha256:" in package, package[:80]
    assert not re.search(r"https?://|--index|--find-links|@ file:", text)


def test_what_the_package_needs_is_in_the_lock():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    locked = {
        line.partition("==")[0].lower() for line in (REPOSITORY / "requirements.lock").read_text().splitlines() if "==" in line
    }
    wanted = {re.split(r"[\[<>=~! ]", name)[0].lower().replace("_", "-") for name in project["dependencies"]}
    assert wanted <= locked


def test_the_run_tags_are_those_of_the_installed_dagster():
    """Checked on dagster 1.13: it has no public names for these tags."""
    from dagster._core.storage import tags as theirs

    from caco_assets.resources.dagster import tags

    assert (tags.PARTITION_RANGE_START, tags.PARTITION_RANGE_END) == (
        theirs.ASSET_PARTITION_RANGE_START_TAG,
        theirs.ASSET_PARTITION_RANGE_END_TAG,
    )
    assert (tags.RETRY_STRATEGY, tags.RUN_KEY, tags.GRPC_INFO) == (
        theirs.RETRY_STRATEGY_TAG,
        theirs.RUN_KEY_TAG,
        theirs.GRPC_INFO_TAG,
    )
