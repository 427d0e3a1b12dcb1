"""The command `caco metrics`, which serves metrics to Prometheus."""

from __future__ import annotations

import click

from caco_assets.settings import find_home


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; a pod's own needs 0.0.0.0.")
@click.option("--port", default=9464, show_default=True, help="0: a free one, which is printed.")
def metrics(host: str, port: int) -> None:
    """Serve the metrics of this machine's workers to Prometheus (they share the folder PROMETHEUS_MULTIPROC_DIR)."""
    from caco_assets.resources.prometheus_exporter import serve

    # settings are not loaded: that would check for secrets that this command does not need
    serve(host, port, find_home() / "workspace", lambda found: click.echo(f"http://{host}:{found}/metrics"))
