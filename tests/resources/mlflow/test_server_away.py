"""A tracking server that is killed and started again: the step waits for it instead of failing the run."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from caco_assets.core.errors import UserError
from caco_assets.resources.mlflow import resource
from caco_assets.resources.mlflow.client import ServerAwayError, Tracking, _ping
from caco_assets.resources.mlflow.resource import TrackingResource
from caco_assets.settings import Settings


class Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def answer_once(server: HTTPServer) -> None:
    with server:
        server.handle_request()


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def test_a_step_is_tried_again_while_the_server_is_away(settings: Settings, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def opened(*_: object) -> Tracking:
        # the real question; the server comes back after the first has had no answer
        asked.append("")
        if len(asked) == 2:
            threading.Thread(target=answer_once, args=(HTTPServer(("127.0.0.1", port), Answer),)).start()
        _ping(f"http://127.0.0.1:{port}")
        return Tracking(f"http://127.0.0.1:{port}", "tiny", None, settings.home)

    monkeypatch.setattr(resource, "open_tracking", opened)
    # it answers one question, and this would be another
    monkeypatch.setattr(resource, "mark_orphans_killed", lambda *_: [])

    @dg.asset
    def challenger(context: dg.AssetExecutionContext, server: TrackingResource) -> None:
        assert server.open(settings).experiment == "tiny"

    result = dg.materialize([challenger], resources={"server": TrackingResource(retry_s=0.1)})
    assert result.success
    assert len(asked) == 2
    again = [event.step_key for event in result.all_events if event.event_type == dg.DagsterEventType.STEP_UP_FOR_RETRY]
    assert again == ["challenger"]


def test_outside_of_a_run_the_error_is_one_line(settings: Settings, port: int) -> None:
    away = settings.model_copy(
        update={"registry": settings.registry.model_copy(update={"tracking_uri": f"http://127.0.0.1:{port}"})}
    )
    with pytest.raises(ServerAwayError, match=r"no answer .*; start the server, or remove the setting") as raised:
        TrackingResource().open(away)
    assert isinstance(raised.value, UserError)
    with dg.build_sensor_context(resources={"server": TrackingResource()}) as context, pytest.raises(ServerAwayError):
        context.resources.server.open(away)
