"""Known vulnerabilities of pinned packages, from a copy of the advisories: generated ones here, real ones if a copy is given."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.deploy

IMAGES = Path(__file__).resolve().parents[2] / "deploy" / "images"
LOCK = "one==1.5.0 \\\n    --hash=sha256:0\nthe-other==2.0 \\\n    --hash=sha256:0\n"


@pytest.fixture
def audit(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(IMAGES)
    spec = importlib.util.spec_from_file_location("image_audit", IMAGES / "audit.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def advisory(name: str, *events: dict[str, str], **more: object) -> dict:
    span = {"type": "ECOSYSTEM", "events": [*events]}
    affected = {"package": {"name": name, "ecosystem": "PyPI"}, "ranges": [span], **more}
    return {"id": "PYSEC-1", "summary": "bad", "affected": [affected]}


@pytest.mark.parametrize(
    ("events", "found"),
    [
        ([{"introduced": "0"}, {"fixed": "1.5.1"}], True),
        ([{"introduced": "0"}, {"fixed": "1.5.0"}], False),
        ([{"introduced": "1.5"}, {"last_affected": "1.5.0"}], True),
        ([{"introduced": "0"}, {"last_affected": "1.4.9"}], False),
        ([{"introduced": "0"}, {"fixed": "1.2"}, {"introduced": "1.4"}, {"fixed": "1.6"}], True),
        ([{"introduced": "1.10"}], False),
    ],
)
def test_a_version_between_two_events_is_affected(audit: ModuleType, events: list[dict[str, str]], found: bool) -> None:
    lines, read = audit.vulnerabilities(LOCK, [advisory("One", *events)])
    assert read == 1
    assert lines == (["one 1.5.0: PYSEC-1: bad"] if found else [])


def test_names_are_compared_as_the_index_does_and_versions_may_be_listed(audit: ModuleType) -> None:
    assert audit.vulnerabilities(LOCK, [advisory("The_Other", versions=["2.0"])])[0] == ["the-other 2.0: PYSEC-1: bad"]


def test_the_whole_lock_is_read_and_a_planted_vulnerability_makes_it_fail(tmp_path: Path) -> None:
    copy = tmp_path / "all.zip"
    with zipfile.ZipFile(copy, "w") as archive:
        for k in range(1200):
            archive.writestr(f"PYSEC-{k}.json", json.dumps(advisory(f"nothing-{k}", {"introduced": "0"})))
        archive.writestr(
            "PYSEC-x.json", json.dumps(advisory("jinja2", {"introduced": "0"}) | {"withdrawn": "2020-01-01T00:00:00Z"})
        )
    line = [sys.executable, str(IMAGES / "audit.py"), str(copy)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "against 1200 advisories: 0 known vulnerabilities" in done.stdout
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("PYSEC-y.json", json.dumps(advisory("Jinja2", {"introduced": "0"})))
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "jinja2" in done.stdout
    # an incomplete copy of the advisories is an error
    with zipfile.ZipFile(copy, "w") as archive:
        archive.writestr("a.json", json.dumps(advisory("one")))
    assert subprocess.run(line, capture_output=True, check=False).returncode == 2


def test_no_pinned_package_has_a_known_vulnerability() -> None:
    copy = os.environ.get("CACO_ADVISORIES")
    if not copy:
        pytest.skip("CACO_ADVISORIES names no copy of the advisories; deploy/images/audit.py says where to download one")
    done = subprocess.run([sys.executable, str(IMAGES / "audit.py"), copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
