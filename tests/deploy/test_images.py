"""The two images: what is taken from the lock, what may get into a layer, and, where buildah can, both for real."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.deploy

ROOT = Path(__file__).resolve().parents[2]
IMAGES = ROOT / "deploy" / "images"
LOCK = (ROOT / "requirements.lock").read_text()


@pytest.fixture(scope="module")
def packages() -> ModuleType:
    spec = importlib.util.spec_from_file_location("image_packages", IMAGES / "packages.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["image_packages"] = module
    spec.loader.exec_module(module)
    return module


def named(image: str) -> list[str]:
    return [line for line in (IMAGES / f"{image}.txt").read_text().splitlines() if not line.startswith("#")]


def chosen(packages: ModuleType, image: str) -> set[str]:
    return set(packages.closure(packages.entries(LOCK), named(image), []))


def test_the_orchestrator_has_no_torch_and_no_cuda_and_the_trainer_no_web_server(packages: ModuleType) -> None:
    orchestrator, trainer = chosen(packages, "orchestrator"), chosen(packages, "trainer")
    heavy = {name for name in orchestrator if re.match("torch|nvidia|cuda|triton|ray$|onnx|timm|lightning", name)}
    assert heavy == set()
    assert {"dagster-webserver", "dagster-postgres", "mlflow", "flask-wtf", "dvc-s3", "psycopg2-binary"} <= orchestrator
    assert {"torch", "ray", "dagster-postgres", "dvc-s3", "onnxruntime"} <= trainer
    assert any(name.startswith("nvidia") for name in trainer)
    assert "dagster-webserver" not in trainer
    assert not {"pytest", "ruff", "playwright", "moto"} & (trainer | orchestrator)


def test_what_the_package_asks_for_is_in_one_image_or_the_other(packages: ModuleType) -> None:
    import tomllib

    wanted = {packages.normal(name) for name in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]}
    assert wanted - {"dagster-webserver"} <= chosen(packages, "trainer")
    assert wanted <= chosen(packages, "trainer") | chosen(packages, "orchestrator")


def test_a_part_of_the_lock_keeps_pins_and_hashes_and_holds_all_that_is_needed(packages: ModuleType) -> None:
    asked = {"a": "", "b": "    # via a\n", "c": "    # via\n    #   a\n    #   d\n", "d": "    # via -r requirements.in\n"}
    lock = packages.entries("".join(f"{name}==1 \\\n    --hash=sha256:{name}\n{by}" for name, by in asked.items()))
    assert packages.closure(lock, ["a"], []) == ["a", "b", "c"]
    assert packages.closure(lock, ["a"], ["c"]) == ["a", "b"]
    assert "--hash=sha256:b" in lock["b"]
    with pytest.raises(SystemExit, match="e: not in the lock"):
        packages.closure(lock, ["e"], [])


def test_nothing_but_the_sources_can_get_into_a_layer() -> None:
    ignored = [line for line in (ROOT / ".containerignore").read_text().splitlines() if not line.startswith("#")]
    assert "*" in ignored
    assert not [line for line in ignored if "secret" in line or "workspace" in line or ".git" in line or "server" in line]
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (IMAGES / "Containerfile").read_text(), re.MULTILINE)
    for name in " ".join(copied).split():
        assert any(name == line[1:] or name.startswith(f"{line[1:]}/") for line in ignored if line.startswith("!")), name


def test_both_images_run_without_privileges_and_have_a_health_check() -> None:
    text = (IMAGES / "Containerfile").read_text()
    for target in ("orchestrator", "trainer"):
        last = text.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert "USER 10001:10001" in last
        assert "HEALTHCHECK" in last
        assert '"caco", "server", "health"' in last
        assert 'CMD ["caco", "server", "run"' in last
        # what builds stays behind: no index, no certificate is named in the history of the image
        assert "INDEX" not in last
        assert "ARG" not in last


PLANTED = "planted-3f9c1e7a"
"""A secret that lies about while an image is built."""
PLACES = ("deploy/server/secrets/planted", "workspace/planted", ".env", "caco_assets/__pycache__/planted")


@pytest.fixture
def planted() -> Iterator[None]:
    """Files with the secret where people leave them; no image may have one."""
    paths = [ROOT / name for name in PLACES]
    assert not [path for path in paths if path.exists()]
    made = [folder for path in paths for folder in (path.parent,) if not folder.exists()]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PLANTED)
    yield
    for path in paths:
        path.unlink()
    for folder in made:
        folder.rmdir()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", ["orchestrator", "trainer"])
def test_an_image_is_built_its_entry_points_run_inside_it_and_no_secret_is_in_it(name: str, planted: None) -> None:
    wanted = os.environ.get("CACO_TEST_IMAGES", "").split(",")
    if name not in wanted or not shutil.which("buildah") or os.geteuid() != 0:
        pytest.skip(
            f"the {name} image is built with CACO_TEST_IMAGES=orchestrator,trainer, as root, with buildah and debootstrap: "
            "many minutes, and more than 44 GB of free disk for the trainer"
        )
    environ = {**os.environ, "BASE": "debootstrap", "TAG": "test", "PGPASSWORD": PLANTED, "AWS_SECRET_ACCESS_KEY": PLANTED}
    subprocess.run([str(IMAGES / "build"), name], env=environ, check=True, timeout=7000)
    image = f"localhost/caco-{name}:test"
    inspected = subprocess.run(["buildah", "inspect", "--type", "image", image], capture_output=True, text=True, check=True).stdout
    assert PLANTED not in inspected
    config = json.loads(json.loads(inspected)["Config"])["config"]
    service = {"orchestrator": "webserver", "trainer": "code"}[name]
    assert config["User"] == "10001:10001"
    assert config["Cmd"] == ["caco", "server", "run", service]
    assert config["Healthcheck"]["Test"] == ["CMD", "caco", "server", "health"]
    container = subprocess.run(["buildah", "from", image], capture_output=True, text=True, check=True).stdout.strip()

    def inside(*command: str) -> str:
        done = subprocess.run(
            ["buildah", "run", "--isolation", "chroot", container, "--", *command], capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    try:
        root = subprocess.run(["buildah", "mount", container], capture_output=True, text=True, check=True).stdout.strip()
        # all layers as one; what a layer had and a later one removed would be in the history of `COPY`, which names no such file
        looked = subprocess.run(["grep", "-rlaF", PLANTED, root], capture_output=True, text=True, check=False)
        assert looked.stdout == ""
        assert Path(root, "opt/caco/bin/caco").exists()
        # an image that is built again has the sources of now, not those that a layer remembers
        (installed,) = Path(root, "opt/caco/lib").glob("python3.*/site-packages")
        mine = [path for path in (ROOT / "caco_assets").rglob("*.py") if "__pycache__" not in path.parts]
        assert [path for path in mine if (installed / path.relative_to(ROOT)).read_bytes() != path.read_bytes()] == []
        assert "caco, version" in inside("caco", "--version")
        assert "CACO_DEPLOYMENT=local: servers are for" in inside("caco", "server", "run", service)
        load = (
            "import sys; from caco_assets.definitions import defs; print(len(defs.resolve_all_job_defs()), 'torch' in sys.modules)"
        )
        assert re.search(r"^\d+ False$", inside("python", "-c", load), re.MULTILINE)
        if name == "orchestrator":
            assert "No module named 'torch'" in inside("python", "-c", "import torch")
        else:
            said = inside("python", "-c", "import torch, ray; print(torch.version.cuda, torch.ones(2).sum().item())")
            assert re.search(r"^\d+\.\d+ 2\.0$", said, re.MULTILINE), said
            assert "No module named 'dagster_webserver'" in inside("python", "-c", "import dagster_webserver")
        # a read-only file system takes nothing away: beside the volume and the scratch there is no file that its user may write
        assert "10001" in inside("id", "-u")
        assert "Permission denied" in inside("touch", "/opt/caco/written")
        free = inside(
            "find", "/", "-xdev", "-writable", "-not", "-type", "l", "-not", "-path", "/proc/*", "-not", "-path", "/dev/*"
        )
        # what find may not look into it says with its own name before
        found = {line for line in free.splitlines() if line.startswith("/") and "find: " not in line}
        assert found <= {"/tmp", "/var/tmp", "/srv/caco", "/run/lock"}, free
    finally:
        subprocess.run(["buildah", "umount", container], capture_output=True, check=False)
        subprocess.run(["buildah", "rm", container], capture_output=True, check=False)
