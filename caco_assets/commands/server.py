"""Commands for a team's server: `caco server run|exec|health|migrate|save-objects|load-objects`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from caco_assets.services.server_processes import SERVICES


@click.group()
def server() -> None:
    """The processes of a team's server (`CACO_DEPLOYMENT=server`)."""


@server.command()
@click.argument("name", type=click.Choice(sorted(SERVICES)))
@click.option("--host", default="0.0.0.0", show_default=True, help="Address that it binds.")  # noqa: S104 - in a container's own network
@click.option("--port", type=int, help="Default: as usual for the service.")
def run(name: str, host: str, port: int | None) -> None:
    """Run one of the processes: code, webserver, daemon or mlflow."""
    from caco_assets.services.server_processes import become

    become(name, host, port)


@server.command("exec", context_settings={"ignore_unknown_options": True})
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def execute(command: tuple[str, ...]) -> None:
    """Run COMMAND (dvc, psql, a shell) with the secrets in its environment."""
    from caco_assets.services.server_processes import become_other

    become_other(list(command))


@server.command()
def health() -> None:
    """Check the health of the process started here; exit status 0 (healthy) or 1."""
    from caco_assets.services.server_processes import healthy

    sys.exit(0 if healthy() else 1)


@server.command()
def migrate() -> None:
    """Create missing databases and buckets, and migrate those of an earlier version."""
    from caco_assets.services.migrate import migrate

    migrate()


@server.command("save-objects")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def save_objects(folder: Path) -> None:
    """Copy the store's objects into FOLDER; existing copies are kept."""
    from caco_assets.services.object_backup import save

    save(folder)


@server.command("load-objects")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
def load_objects(folder: Path) -> None:
    """Copy FOLDER back into the store; objects of the same size are kept."""
    from caco_assets.services.object_backup import load

    load(folder)
