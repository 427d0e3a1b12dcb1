"""The laws of the house: what no single room can see."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import textwrap
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import grimp
import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / "caco_assets"
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


def test_the_embedded_earth_needs_numpy_alone():
    assert (
        python(f"""
            import importlib, sys

            class NumpyAlone:
                def find_spec(self, name, path=None, target=None):
                    top = name.partition(".")[0]
                    if top not in ("numpy", "caco_assets") and top not in sys.stdlib_module_names:
                        raise ModuleNotFoundError(f"the generator imports {{name}}")

            sys.meta_path.insert(0, NumpyAlone())
            for module in {GENERATOR}:
                importlib.import_module(f"caco_assets.synthetic.earth.{{module}}")
            print("imported")
        """)
        == "imported"
    )


def circle_of_imports(package: str) -> list[str]:
    """Modules of a package on `sys.path` that import each other in a circle, first and last the same; [] without a circle.

    Imports inside functions count, those for the type checker alone do not.
    """
    graph = grimp.build_graph(package, exclude_type_checking_imports=True, cache_dir=None)
    try:
        TopologicalSorter({module: graph.find_modules_directly_imported_by(module) for module in graph.modules}).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_files_import_each_other_in_a_circle():
    assert circle_of_imports("caco_assets") == []


def test_a_circle_of_imports_is_found_also_inside_a_function(tmp_path, monkeypatch):
    example = tmp_path / "circle_example"
    example.mkdir()
    (example / "__init__.py").touch()
    (example / "first.py").write_text("from circle_example import second\n")
    (example / "second.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from circle_example.first import name\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert circle_of_imports("circle_example") == []
    (example / "second.py").write_text("def call():\n    import circle_example.first\n")
    assert set(circle_of_imports("circle_example")) == {"circle_example.first", "circle_example.second"}


def loose_modules(package: Path) -> list[str]:
    """Modules at the root of the package that belong into a room."""
    return sorted({path.stem for path in package.glob("*.py")} - {"__init__", "api", "cli", "definitions"})


def crowded_folders(package: Path) -> dict[str, int]:
    """Folders with more than twenty modules: they need wings."""
    counts = Counter(path.parent.relative_to(package).as_posix() for path in package.rglob("*.py") if path.stem != "__init__")
    return {folder: count for folder, count in counts.items() if count > 20}


def imports_of_dagster_core(package: Path) -> list[str]:
    """Files that import Dagster's private modules, which change without notice."""
    found = []
    for path in sorted(package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            if any(f"{name}.".startswith("dagster._") for name in names):
                found.append(path.relative_to(package).as_posix())
    return sorted(set(found))


def programs_that_log_outside_the_package(package: Path) -> list[str]:
    """Modules for `python -m` whose logger is `__main__`, which no handler of the package receives."""
    texts = {path: path.read_text() for path in sorted(package.rglob("*.py"))}
    return [path.name for path, text in texts.items() if '__name__ == "__main__"' in text and "getLogger(__name__)" in text]


def test_four_modules_lie_at_the_root_of_the_package_and_no_folder_is_crowded():
    assert loose_modules(PACKAGE) == []
    assert crowded_folders(PACKAGE) == {}


def test_one_file_imports_the_private_modules_of_dagster():
    assert imports_of_dagster_core(PACKAGE) == ["resources/dagster/run_launcher.py"]


def test_a_program_logs_inside_the_package():
    assert programs_that_log_outside_the_package(PACKAGE) == []


def test_a_loose_module_a_crowded_folder_a_private_import_and_a_silent_program_are_found(tmp_path):
    room = tmp_path / "room"
    room.mkdir()
    for number in range(21):
        (room / f"module_{number}.py").touch()
    (tmp_path / "cli.py").write_text("from dagster import Definitions\n")
    (tmp_path / "helpers.py").write_text("def call():\n    from dagster import _core\n")
    (room / "module_0.py").write_text("import dagster._core.errors\n")
    (room / "module_1.py").write_text("from dagster._core.launcher import DefaultRunLauncher\n")
    (room / "module_2.py").write_text('logger = logging.getLogger(__name__)\nif __name__ == "__main__":\n    logger.info("lost")\n')
    assert loose_modules(tmp_path) == ["helpers"]
    assert crowded_folders(tmp_path) == {"room": 21}
    assert imports_of_dagster_core(tmp_path) == ["helpers.py", "room/module_0.py", "room/module_1.py"]
    assert programs_that_log_outside_the_package(tmp_path) == ["module_2.py"]


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_has_one_name_everywhere(room):
    assert (REPOSITORY / "caco_assets" / room / "__init__.py").exists()
    assert (REPOSITORY / "tests" / room).is_dir()
    assert list((REPOSITORY / "tests" / room).rglob("test_*.py"))
    assert (REPOSITORY / "caco_assets" / room / "stage.py").exists()


def test_the_dvc_stages_are_data_products_and_their_commands_exist():
    from caco_assets.core.stage_versions import stage_version

    stages = yaml.safe_load((REPOSITORY / "dvc.yaml").read_text())["stages"]
    for name in stages:
        if name != "settings":
            assert stage_version(name)
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
    assert (tags.RETRY_STRATEGY, tags.MAX_RETRIES, tags.RUN_KEY, tags.GRPC_INFO) == (
        theirs.RETRY_STRATEGY_TAG,
        theirs.MAX_RETRIES_TAG,
        theirs.RUN_KEY_TAG,
        theirs.GRPC_INFO_TAG,
    )
