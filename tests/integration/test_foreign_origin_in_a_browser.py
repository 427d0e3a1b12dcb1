"""A real browser with a page of another origin open, while `caco up` runs: every way to Dagster, MLflow and the pages is tried."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import dagster as dg
import pytest

from caco_assets.resources.dagster.instance import dagster_home
from caco_assets.services.local_stack import free_port
from caco_assets.settings import Settings

pytestmark = [pytest.mark.integration, pytest.mark.systems]

DELETE = 'mutation { deletePipelineRun(runId: "%s") { __typename } }'
ATTACK = """
async ([dagster, mlflow, pages, mutation]) => {
  const seen = {};
  const link = `${dagster}/graphql?query=${encodeURIComponent(mutation)}`;
  const body = JSON.stringify({query: mutation});
  const made = JSON.stringify({name: "planted"});
  const create = `${mlflow}/api/2.0/mlflow/experiments/create`;
  const ask = async (name, url, options) => {
    try { const answer = await fetch(url, options); seen[name] = answer.type + " " + (await answer.text()).slice(0, 200); }
    catch (error) { seen[name] = "blocked"; }
  };
  const load = (name, element) => new Promise(done => {
    element.onload = () => { seen[name] = "loaded"; done(); };
    element.onerror = () => { seen[name] = "blocked"; done(); };
    setTimeout(done, 4000);
    document.body.append(element);
  });
  await ask("read", `${dagster}/server_info`, {});
  await ask("link", link, {mode: "no-cors", credentials: "include"});
  await ask("post", `${dagster}/graphql`, {method: "POST", headers: {"content-type": "application/json"}, body});
  await ask("text", `${dagster}/graphql`, {method: "POST", mode: "no-cors", headers: {"content-type": "text/plain"}, body});
  await ask("form", link, {method: "POST", mode: "no-cors", body: new URLSearchParams({a: 1})});
  await ask("mlflow read", `${mlflow}/api/2.0/mlflow/experiments/get?experiment_id=0`, {});
  await ask("mlflow json", create, {method: "POST", headers: {"content-type": "application/json"}, body: made});
  await ask("mlflow text", create, {method: "POST", mode: "no-cors", headers: {"content-type": "text/plain"}, body: made});
  await ask("pages", `${pages}/report/report.html`, {});
  await load("image", Object.assign(new Image(), {src: link}));
  await load("script", Object.assign(document.createElement("script"), {src: link}));
  for (const [name, address] of [["frame", link], ["mlflow frame", mlflow], ["pages frame", `${pages}/report/report.html`]]) {
    await load(name, Object.assign(document.createElement("iframe"), {src: address}));
    delete seen[name];
  }
  const form = Object.assign(document.createElement("form"), {method: "POST", action: link, target: "hidden"});
  document.body.append(Object.assign(document.createElement("iframe"), {name: "hidden"}), form);
  form.submit();
  seen.socket = await new Promise(done => {
    const socket = new WebSocket(dagster.replace("http", "ws") + "/graphql", "graphql-ws");
    socket.onopen = () => done("open");
    socket.onerror = () => done("blocked");
    setTimeout(() => done("silent"), 8000);
  });
  await new Promise(done => setTimeout(done, 2000));
  return seen;
}
"""


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>elsewhere</title><body>")

    def log_message(self, *arguments: object) -> None:
        """Quiet."""


@pytest.fixture
def elsewhere() -> Iterator[int]:
    """Port of another server of this machine."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Empty)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server.server_port
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium that finds every `….example` on this machine."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no chromium on PATH (Debian: apt-get install chromium)")
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    arguments = ["--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP *.example 127.0.0.1"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=arguments)
        yield started
        started.close()


@pytest.fixture
def stack(settings: Settings) -> Iterator[dict[str, str]]:
    """`caco up`: name of a server → its address."""
    ports = {name: free_port(0) for name in ("dagster", "mlflow", "pages")}
    page = settings.paths.report / "report.html"
    page.parent.mkdir(parents=True)
    page.write_text("<body>the report<script>document.title = 'ran'</script>")
    environment = {**os.environ, "CACO_HOME": str(settings.home), "CACO_PROFILE": "tiny"}
    options = [f"--{name}-port={port}" for name, port in ports.items()]
    command = [sys.executable, "-m", "caco_assets.cli", "up", *options]
    process = subprocess.Popen(command, env=environment, cwd=settings.home, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while "Ctrl-C" not in said:
            line = process.stderr.readline()
            assert line, f"ended early: {said}"
            said += line
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(120)
        assert process.stderr is not None
        process.stderr.close()


def test_a_page_of_another_origin_reaches_nothing_and_the_servers_own_pages_work(
    settings: Settings, stack: dict[str, str], elsewhere: int, browser: Any
) -> None:
    with dg.DagsterInstance.from_config(str(dagster_home(settings))) as instance:
        run = instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.SUCCESS)
    servers = [stack["dagster"], stack["mlflow"], stack["pages"]]
    for origin in (f"http://evil.example:{elsewhere}", f"http://127.0.0.1:{elsewhere}"):
        page = browser.new_page()
        page.goto(f"{origin}/")
        seen = page.evaluate(ATTACK, [*servers, DELETE % run.run_id])
        # an opaque answer is one that the page cannot read; what it has caused is looked for below
        assert {name: said for name, said in seen.items() if said not in ("blocked", "opaque ")} == {}, origin
        framed = [frame.content() for frame in page.frames[1:]]
        assert [text for text in framed if re.search("the report|graphiql|mlflow", text, re.IGNORECASE)] == [], origin
        page.close()
    assert _runs(stack["dagster"]) == [run.run_id]
    assert "planted" not in _experiments(stack["mlflow"])

    # a name of the attacker that points at this machine, with the server's port: its pages do not even load
    for name, address in stack.items():
        answer = browser.new_page().goto(address.replace("127.0.0.1", "rebound.example"))
        assert answer.status == 403, name

    # a report opens by a link and runs no script, although it holds one
    page = browser.new_page()
    page.goto(f"http://evil.example:{elsewhere}/")
    page.evaluate("address => { location.href = address }", f"{stack['pages']}/report/report.html")
    page.get_by_text("the report").wait_for()
    assert page.title() != "ran"

    # the same requests from the servers' own pages, which shows that the attack would have worked
    page = browser.new_page()
    page.goto(f"{stack['mlflow']}/")
    made = page.evaluate(
        """() => fetch("/api/2.0/mlflow/experiments/create", {method: "POST", headers: {"content-type": "application/json"},
        body: JSON.stringify({name: "planted"})}).then(answer => answer.status)"""
    )
    assert made == 200
    assert "planted" in _experiments(stack["mlflow"])
    page.goto(f"{stack['dagster']}/runs")
    socket = page.evaluate(
        """() => new Promise(done => { const socket = new WebSocket(`ws://${location.host}/graphql`, "graphql-ws");
        socket.onopen = () => done("open"); socket.onerror = () => done("blocked"); })"""
    )
    assert socket == "open"
    deleted = page.evaluate(
        """query => fetch("/graphql", {method: "POST", headers: {"content-type": "application/json"},
        body: JSON.stringify({query})}).then(answer => answer.text())""",
        DELETE % run.run_id,
    )
    assert "DeletePipelineRunSuccess" in deleted
    assert _runs(stack["dagster"]) == []


@dg.job
def nothing() -> None:
    pass


def _runs(dagster: str) -> list[str]:
    query = "{ runsOrError { ... on Runs { results { runId } } } }"
    found = _post(f"{dagster}/graphql", {"query": query})["data"]["runsOrError"]["results"]
    return [run["runId"] for run in found]


def _experiments(mlflow: str) -> list[str]:
    found = _post(f"{mlflow}/api/2.0/mlflow/experiments/search", {"max_results": 100})
    return [experiment["name"] for experiment in found["experiments"]]


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
