"""A page of another web site is open in the browser while the local servers run: it can neither read nor change anything."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from caco_assets.resources.same_origin import ALLOWED_HOSTS, SameOrigin, refusal

HERE = "http://127.0.0.1:3000"
ATTACKS: dict[str, dict[str, str]] = {
    "a page of another site posts": {"Origin": "http://evil.example"},
    "a page of another port posts": {"Origin": "http://127.0.0.1:3001"},
    "a page on this port of another protocol's default": {"Origin": "http://127.0.0.1"},
    "a file or a sandboxed frame posts": {"Origin": "null"},
    "an image of another site": {
        "Sec-Fetch-Site": "cross-site",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Dest": "image",
    },
    "a fetch of another port": {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "empty"},
    "a frame of another site": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
    "a name that points here": {"Host": "evil.example:3000"},
    "a name that looks like an address": {"Host": "127.0.0.1.evil.example"},
    "a name that MLflow takes for a private network": {"Host": "10.evil.example"},
    "no name": {"Host": ""},
    "a name that is none": {"Host": "[::1"},
}
SERVED: dict[str, dict[str, str]] = {
    "a program": {},
    "a page of its own": {"Origin": HERE, "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    "the address line": {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "a link in a mail": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    "a tunnel to another port": {"Host": "localhost:8080", "Origin": "http://localhost:8080"},
    "the other kind of loopback": {"Host": "[::1]:3000"},
}


@pytest.fixture
def browser() -> TestClient:
    """A client of a small guarded server."""

    async def answer(_: object) -> PlainTextResponse:
        return PlainTextResponse("secret")

    async def talk(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_text("secret")
        await socket.close()

    routes = [Route("/", answer, methods=["GET", "POST"]), WebSocketRoute("/", talk)]
    return TestClient(SameOrigin(Starlette(routes=routes)), base_url=HERE)


@pytest.mark.parametrize("headers", ATTACKS.values(), ids=ATTACKS)
def test_it_is_refused_whether_it_gets_posts_or_opens_a_socket(browser: TestClient, headers: dict[str, str]) -> None:
    for answer in (browser.get("/", headers=headers), browser.post("/", headers=headers)):
        assert answer.status_code == 403
        assert "secret" not in answer.text
        assert "access-control-allow-origin" not in answer.headers
    with pytest.raises(WebSocketDisconnect), browser.websocket_connect("ws://127.0.0.1:3000/", headers=headers):
        pass


@pytest.mark.parametrize("headers", SERVED.values(), ids=SERVED)
def test_its_own_pages_links_and_programs_are_served(browser: TestClient, headers: dict[str, str]) -> None:
    answer = browser.get("/", headers=headers)
    assert (answer.status_code, answer.text) == (200, "secret")
    assert answer.headers["x-frame-options"] == "SAMEORIGIN"


def test_a_link_is_followed_but_a_foreign_form_is_not_sent(browser: TestClient) -> None:
    assert browser.post("/", headers=SERVED["a link in a mail"]).status_code == 403


def test_a_socket_of_its_own_page_opens(browser: TestClient) -> None:
    with browser.websocket_connect("ws://127.0.0.1:3000/", headers={"Origin": HERE}) as socket:
        assert socket.receive_text() == "secret"


def test_the_name_of_a_proxy_can_be_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOWED_HOSTS, "Work.example.org:8443, other.example.org,")
    guarded = SameOrigin(PlainTextResponse("secret"))
    ask = TestClient(guarded, base_url="https://work.example.org")
    assert ask.get("/", headers={"Origin": "https://work.example.org"}).status_code == 200
    assert ask.get("/", headers={"Origin": "https://other.example.org"}).status_code == 403
    assert TestClient(guarded, base_url="https://example.org").get("/").status_code == 403


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=20))
def test_no_bytes_in_the_headers_pass_as_a_foreign_origin(host: bytes, origin: bytes, site: bytes) -> None:
    """Whatever a header holds, the check ends with a verdict, and lets in only what is exactly known."""
    headers = [(b"host", host), (b"origin", origin), (b"sec-fetch-site", site)]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/", "headers": headers}
    if refusal(scope, ("127.0.0.1",)) is None:
        assert host.split(b":")[0].split(b"@")[-1] == b"127.0.0.1"
        assert origin.lower() in (b"http://" + host.lower(), b"https://" + host.lower())
        assert site in (b"none", b"same-origin")


MUTATION = 'mutation { deletePipelineRun(runId: "1") { __typename } }'


@pytest.mark.filterwarnings("ignore")
def test_dagster_takes_no_query_that_a_link_or_a_form_can_send() -> None:
    from dagster_webserver.webserver import DagsterWebserver

    from caco_assets.resources.dagster.web_server import GuardedWebserver

    def ask(kind: type[DagsterWebserver[Any, Any]]) -> list[int]:
        class Server(kind):  # type: ignore[misc, valid-type]
            """Its endpoint alone: a schema takes seconds to build."""

            def build_graphql_schema(self) -> Any:
                return None

            async def execute_graphql_request(self, request: Any, query: str, *_: Any, **__: Any) -> Any:
                return PlainTextResponse(f"executed {query}")

        client = TestClient(Server(None).create_asgi_app(), base_url=HERE)
        link = client.get("/graphql", params={"query": MUTATION}, headers={"Accept": "*/*"})
        form = client.post("/graphql", params={"query": MUTATION}, headers={"Content-Type": "text/plain"})
        odd = client.post("/graphql", json={"query": MUTATION}, headers={"Content-Type": "text/plain; application/json"})
        # as Dagster's own pages send it
        proper = client.post("/graphql", params={"op": "DeleteRun"}, json={"query": MUTATION})
        foreign = client.post("/graphql", json={"query": MUTATION}, headers={"Origin": "http://evil.example"})
        return [answer.status_code for answer in (link, form, odd, foreign, proper)]

    assert ask(DagsterWebserver) == [200, 200, 200, 200, 200], "Dagster has a check of its own now: is ours still needed?"
    assert ask(GuardedWebserver) == [400, 400, 400, 403, 200]


def test_mlflow_is_started_with_its_application_behind_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow.server

    from caco_assets.resources.mlflow import web_server

    monkeypatch.setattr(mlflow.server, "_build_uvicorn_command", mlflow.server._build_uvicorn_command)
    # importing the real one takes seconds
    monkeypatch.setitem(sys.modules, "mlflow.cli", SimpleNamespace(cli=lambda: None))
    web_server.main()
    command = mlflow.server._build_uvicorn_command(None, "127.0.0.1", 5000, 1, "mlflow.server.fastapi_app:app", None, False)
    assert command[-2:] == ["--factory", "caco_assets.resources.mlflow.web_server:build_app"]
    with pytest.raises(RuntimeError, match="not the command"):
        mlflow.server._build_uvicorn_command(None, "127.0.0.1", 5000, 1, "other:app", None, False)
