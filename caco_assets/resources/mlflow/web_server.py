"""MLflow's server behind `SameOrigin`: `python -m caco_assets.resources.mlflow.web_server` takes the options of `mlflow`.

By itself MLflow trusts every page of this machine (`localhost` at any port) and host names such as `10.example.org`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from caco_assets.resources.same_origin import SameOrigin

if TYPE_CHECKING:
    from starlette.types import ASGIApp

MODULE = "caco_assets.resources.mlflow.web_server"


def build_app() -> ASGIApp:
    """MLflow's application, for its own pages and for programs only."""
    from mlflow.server.fastapi_app import app

    return SameOrigin(app)


def main() -> None:
    """Run MLflow's command with the arguments of this process; `server` serves `build_app`."""
    import mlflow.server
    from mlflow.cli import cli

    theirs = mlflow.server._build_uvicorn_command

    def command(options: str | None, host: str, port: int, workers: int, app: str, *others: Any) -> list[str]:
        known = theirs(options, host, port, workers, app, *others)
        if known[-1] != "mlflow.server.fastapi_app:app":
            raise RuntimeError(f"{known}: not the command that this module was written for")
        return [*known[:-1], "--factory", f"{MODULE}:build_app"]

    mlflow.server._build_uvicorn_command = command
    cli()


if __name__ == "__main__":
    main()
