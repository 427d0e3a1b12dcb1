"""`deploy/compose.yaml` is sound: by the specification's schema, and by the rules of this project that no schema knows."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from caco_assets.cli import main
from caco_assets.services.server_processes import SERVICES

pytestmark = pytest.mark.deploy

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICE: dict[str, dict[str, Any]] = COMPOSE["services"]
SCHEMA_PACKAGE = "check-jsonschema==0.39.0"
"""Carries the schema of the compose specification."""


def environment(service: dict[str, Any]) -> dict[str, str]:
    """What a service is told, by its files and by itself."""
    told: dict[str, str] = {}
    for name in service.get("env_file", []):
        lines = [line for line in (DEPLOY / name).read_text().splitlines() if line and not line.startswith("#")]
        told |= dict(line.split("=", 1) for line in lines)
    return told | service.get("environment", {})


def test_it_follows_the_schema_of_the_specification(tmp_path: Path) -> None:
    import jsonschema

    command = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--no-deps", "--target", str(tmp_path), SCHEMA_PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        pytest.skip(f"{SCHEMA_PACKAGE}, which carries the schema, could not be fetched: {done.stderr[-200:]}")
    (schema,) = tmp_path.rglob("compose-spec.json")
    wrong = jsonschema.Draft202012Validator(json.loads(schema.read_text())).iter_errors(COMPOSE)
    assert [f"{list(error.absolute_path)}: {error.message}" for error in wrong] == []


def test_every_command_is_one_of_the_package() -> None:
    commands = {name: service["command"] for name, service in SERVICE.items() if str(service["image"]).startswith("caco-")}
    assert set(SERVICES) <= {*commands}
    for name, command in commands.items():
        assert command[0] == "caco"
        if command[1:3] == ["server", "run"]:
            assert command[3] == ("code" if name == "gpu-worker" else name)
        elif command[1] != "--help":
            assert main.commands["server"].commands[command[2]]  # pyright: ignore[reportAttributeAccessIssue]


def test_every_secret_that_a_process_reads_is_given_to_it_and_no_value_of_one_is_written_anywhere() -> None:
    for name, service in SERVICE.items():
        for variable, value in environment(service).items():
            if value.startswith("/run/secrets/"):
                assert variable.endswith("_FILE")
                assert value.removeprefix("/run/secrets/") in service["secrets"], f"{name}: {variable}"
                continue
            assert not re.search("PASSWORD|SECRET|_KEY|TOKEN", variable), f"{name}: {variable} holds a secret"
        for each in service.get("secrets", []):
            assert each in COMPOSE["secrets"]
    named = re.findall(r"/run/secrets/(\w+)", (DEPLOY / "server" / "nginx.conf").read_text())
    assert set(named) == set(SERVICE["proxy"]["secrets"])


def test_what_a_service_needs_is_in_its_environment() -> None:
    for name, service in SERVICES.items():
        told = environment(SERVICE[name])
        missing = [each for each in service.needs if each not in told and f"{each}_FILE" not in told]
        assert missing == [], name


def test_containers_write_nowhere_but_to_volumes_and_have_no_rights_they_do_not_need() -> None:
    for name, service in SERVICE.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert not service.get("privileged"), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            assert source in COMPOSE["volumes"] or volume.endswith(":ro"), f"{name}: {volume}"


def test_only_the_proxy_is_reached_from_outside_and_only_it_and_the_code_have_a_way_out() -> None:
    assert [name for name, service in SERVICE.items() if "ports" in service] == ["proxy"]
    assert {name for name, service in SERVICE.items() if "outer" in service["networks"]} == {"proxy", "code", "gpu-worker"}
    assert COMPOSE["networks"]["inner"]["internal"]


def test_databases_and_buckets_are_there_before_anything_asks_for_them() -> None:
    for name in ("mlflow", "code", "gpu-worker", "webserver", "daemon"):
        assert SERVICE[name]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert all(each["condition"] == "service_healthy" for each in SERVICE["migrate"]["depends_on"].values())


def test_secrets_are_made_once_and_kept_and_none_is_printed(tmp_path: Path) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl here (Debian: openssl)")
    command = [str(DEPLOY / "server" / "make-secrets"), str(tmp_path / "secrets")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert set(made) >= {*COMPOSE["secrets"]}
    assert not [name for name, text in made.items() if text.strip() in said]
    assert made["login_users"].startswith("team:$6$")
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == ""
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made
    assert (tmp_path / "secrets").stat().st_mode & 0o077 == 0
    assert "/deploy/server/secrets/" in (DEPLOY.parent / ".gitignore").read_text()


def test_the_proxy_accepts_its_configuration(tmp_path: Path) -> None:
    if not shutil.which("nginx"):
        pytest.skip("no nginx here (Debian: nginx-light)")
    secrets = tmp_path / "secrets"
    subprocess.run([str(DEPLOY / "server" / "make-secrets"), str(secrets)], check=True, capture_output=True)
    text = (DEPLOY / "server" / "nginx.conf").read_text().replace("/tmp/", f"{tmp_path}/").replace("/run/secrets/", f"{secrets}/")
    config = tmp_path / "nginx.conf"
    config.write_text(text.replace("/dev/stdout", f"{tmp_path}/out").replace("/dev/stderr", f"{tmp_path}/err"))
    done = subprocess.run(["nginx", "-t", "-c", str(config)], capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr, done.stderr
