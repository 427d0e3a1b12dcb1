"""The proxy of the team server, by itself: requests of other origins are refused, pages have an origin of their own."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

pytestmark = pytest.mark.deploy

SERVER = Path(__file__).resolve().parents[2] / "deploy" / "server"
FOREIGN: dict[str, dict[str, str]] = {
    "another site": {"Origin": "https://evil.example"},
    "another port": {"Origin": "https://localhost:1"},
    "another protocol": {"Origin": "http://localhost:{port}"},
    "a sandboxed page": {"Origin": "null"},
    "a longer name": {"Origin": "https://localhost:{port}.evil.example"},
    "an image": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    "the pages' origin": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    "a frame": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "a socket": {"Origin": "https://evil.example", "Connection": "Upgrade", "Upgrade": "websocket"},
}
OWN: dict[str, dict[str, str]] = {
    "a program": {},
    "its own page": {"Origin": "https://localhost:{port}", "Sec-Fetch-Site": "same-origin"},
    "a link": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "the address line": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
}
Ask = Callable[..., tuple[int, bytes, dict[str, str]]]


class _Behind(BaseHTTPRequestHandler):
    def answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "6")
        self.end_headers()
        self.wfile.write(b"behind")

    do_GET = do_POST = answer  # noqa: N815

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """`ask(server, path, headers, method="GET")` with the team's login: status, body and headers."""
    if not shutil.which("nginx") or not shutil.which("openssl"):
        pytest.skip("no nginx or openssl here (Debian: nginx-light openssl)")
    folder = tmp_path_factory.mktemp("proxy")
    secrets, home = folder / "secrets", folder / "home"
    subprocess.run([str(SERVER / "make-secrets"), str(secrets)], check=True, capture_output=True)
    _fill(home / "workspace" / "tiny", folder / "outside")
    behind = ThreadingHTTPServer(("127.0.0.1", 0), _Behind)
    thread = threading.Thread(target=behind.serve_forever, daemon=True)
    thread.start()
    ports = {name: _free_port() for name in ("8443", "8444", "8445")}
    text = (SERVER / "nginx.conf").read_text().replace("/tmp/", f"{folder}/").replace("/run/secrets/", f"{secrets}/")
    text = text.replace("/srv/caco/", f"{home}/").replace("/dev/stdout", f"{folder}/out").replace("/dev/stderr", f"{folder}/err")
    for there in ("webserver:3000", "mlflow:5000"):
        text = text.replace(there, f"127.0.0.1:{behind.server_port}")
    for there, port in ports.items():
        text = text.replace(there, str(port))
    (folder / "nginx.conf").write_text(text)
    rights = "user root;" if os.geteuid() == 0 else ""
    nginx = subprocess.Popen(["nginx", "-c", str(folder / "nginx.conf"), "-g", f"daemon off; {rights}"])
    trusted = ssl.create_default_context(cafile=str(secrets / "tls_certificate"))
    login = base64.b64encode(f"team:{(secrets / 'login_password').read_text().strip()}".encode()).decode()

    def request(
        server: str, path: str, headers: dict[str, str] | None = None, method: str = "GET"
    ) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPSConnection("localhost", ports[server], context=trusted, timeout=20)
        sent = {name: value.format(port=ports[server]) for name, value in (headers or {}).items()}
        connection.request(method, path, headers={"Authorization": f"Basic {login}", **sent})
        answer = connection.getresponse()
        body = answer.read()
        connection.close()
        return answer.status, body, {name.lower(): value for name, value in answer.getheaders()}

    deadline = time.monotonic() + 20
    while not _listens(ports["8443"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    yield request
    nginx.terminate()
    nginx.wait(20)
    behind.shutdown()
    behind.server_close()
    thread.join()


@pytest.mark.parametrize("server", ["8443", "8444", "8445"])
@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_a_page_of_another_origin_gets_nothing_although_the_browser_sends_the_password(
    ask: Ask, server: str, headers: dict[str, str]
) -> None:
    for method in ("GET", "POST"):
        status, body, _ = ask(server, "/tiny/report/report.html", headers, method)
        assert status == 403
        assert b"behind" not in body
        assert b"report</h1>" not in body


@pytest.mark.parametrize("server", ["8443", "8444"])
@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_its_own_pages_links_and_programs_get_through(ask: Ask, server: str, headers: dict[str, str]) -> None:
    assert ask(server, "/graphql", headers)[:2] == (200, b"behind")


def test_a_form_of_another_site_is_no_link(ask: Ask) -> None:
    assert ask("8443", "/graphql", OWN["a link"], "POST")[0] == 403


def test_pages_are_served_on_their_own_origin_and_run_nothing(ask: Ask) -> None:
    for path in ("/tiny/report/report.html", "/tiny/data_docs/index.html", "/tiny/data_docs/validations/a/2026:01/x.html"):
        status, body, headers = ask("8445", path, OWN["a link"])
        assert (status, body) == (200, b"<h1>report</h1>")
        assert "sandbox" in headers["content-security-policy"]
        assert "allow-scripts" not in headers["content-security-policy"]
    status, _, headers = ask("8443", "/pages/tiny/report/report.html")
    assert status == 301
    assert headers["location"].endswith("/tiny/report/report.html")


OTHERS = (
    "/", "/tiny/", "/tiny/report/", "/tiny/data_docs/", "/tiny/params.yaml", "/tiny/report/secret.txt", "/link/report/report.html",
    "/tiny/data_docs/results/x.json", "/tiny/data_docs/link/passwd.html", "/tiny/data_docs/passwd.html",
    "/tiny/data_docs/..%2fparams.yaml",
)  # fmt: skip


@pytest.mark.parametrize("path", OTHERS)
def test_nothing_else_of_the_workspace_is_served(ask: Ask, path: str) -> None:
    status, body, _ = ask("8445", path)
    assert status in (403, 404)
    assert b"secret" not in body


def test_pages_need_the_login(ask: Ask) -> None:
    assert ask("8445", "/tiny/report/report.html", {"Authorization": "Basic eDp5"})[0] == 401


def _fill(root: Path, outside: Path) -> None:
    for name in ("report/report.html", "data_docs/index.html", "data_docs/validations/a/2026:01/x.html"):
        _write(root / name, "<h1>report</h1>")
    for name in ("params.yaml", "report/secret.txt", "data_docs/results/x.json"):
        _write(root / name, "secret")
    _write(outside / "passwd.html", "secret")
    _write(outside / "report" / "report.html", "secret")
    (root / "data_docs" / "link").symlink_to(outside)
    (root / "data_docs" / "passwd.html").symlink_to(outside / "passwd.html")
    (root.parent / "link").symlink_to(outside)


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
