"""What the pages server shows of a workspace full of other things: the report, the model card, the data docs, nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient

from caco_assets.services.pages import build_app, find_page

HERE = "http://127.0.0.1:3001"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder of a profile with pages, secrets and links that leave it."""
    root = tmp_path / "workspace" / "tiny"
    for name in ("report/report.html", "report/model_card.md", "report/scorecard.json", "data_docs/index.html"):
        _write(root / name, f"<h1>{name}</h1>")
    _write(root / "data_docs" / "validations" / "caco" / "2026-11-01T00:00:00" / "locations.html", "<h1>locations</h1>")
    for name in ("report/secret.txt", "params.yaml", "data_docs/results/locations.json", "data_docs/.building-7/index.html"):
        _write(root / name, "secret")
    outside = tmp_path / "outside"
    _write(outside / "passwd.html", "secret")
    (root / "link").symlink_to(outside)
    (root / "data_docs" / "link").symlink_to(outside)
    (root / "data_docs" / "passwd.html").symlink_to(outside / "passwd.html")
    (root / "data_docs" / "folder.html").mkdir()
    return root


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(build_app(root), base_url=HERE)


def test_the_first_page_links_to_the_pages_that_exist(client: TestClient, root: Path) -> None:
    shown = client.get("/").text
    for name in ("report/report.html", "report/model_card.md", "report/scorecard.json", "data_docs/index.html"):
        assert f'href="/{name}"' in shown
        assert client.get(f"/{name}").text == f"<h1>{name}</h1>"
    (root / "report" / "scorecard.json").unlink()
    assert "scorecard" not in client.get("/").text


def test_the_pages_of_the_data_docs_are_served_and_run_nothing(client: TestClient) -> None:
    answer = client.get("/data_docs/validations/caco/2026-11-01T00:00:00/locations.html")
    assert answer.text == "<h1>locations</h1>"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "sandbox" in policy
    assert "allow-scripts" not in policy
    assert "script-src" not in policy


def test_text_is_served_as_text(client: TestClient) -> None:
    assert client.get("/report/model_card.md").headers["content-type"].startswith("text/plain")


OTHERS = (
    "/report", "/report/", "/report/report.html/", "/report/secret.txt", "/data_docs", "/data_docs/", "/data_docs/folder.html",
    "/data_docs/results/locations.json", "/data_docs/.building-7/index.html", "/data_docs/../params.yaml", "/params.yaml",
    "/data_docs/%2e%2e/report/secret.txt", "/data_docs/%00.html", "/link/passwd.html", "/data_docs/link/passwd.html",
    "/data_docs/passwd.html", "/data_docs/..%2f..%2f..%2foutside/passwd.html", "//etc/passwd",
)  # fmt: skip


@pytest.mark.parametrize("path", [*OTHERS, f"/data_docs/{5000 * 'a'}.html"], ids=lambda path: path[:50])
def test_nothing_else_is_served(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert "secret" not in answer.text
    assert "report.html" not in answer.text


def test_a_workspace_that_is_itself_reached_through_a_link_is_served(root: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(root)
    assert find_page(tmp_path / "elsewhere", "report/report.html") is not None


def test_another_site_gets_nothing(client: TestClient) -> None:
    assert client.get("/report/report.html", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/report/report.html", headers={"Origin": "http://127.0.0.1:3000"}).status_code == 403


def test_a_profile_without_pages_says_so(tmp_path: Path) -> None:
    assert "Nothing has been made yet" in TestClient(build_app(tmp_path / "new"), base_url=HERE).get("/").text


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
