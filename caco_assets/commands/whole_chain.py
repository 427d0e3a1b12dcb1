"""Commands for the whole chain: `caco settings`, `caco demo`, `caco up`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of


@click.command()
@profile_option
@click.option("--write", is_flag=True, help="Write what the DVC stages depend on into the workspace.")
def settings(profile: str, write: bool) -> None:
    """Show the settings after applying the profile and the environment."""
    from caco_assets.resources.dvc.params import write_stage_settings

    resolved = settings_of(profile, writes=write)
    if write:
        click.echo(write_stage_settings(resolved))
    else:
        click.echo(resolved.model_dump_json(indent=1, by_alias=False))


@click.command()
@profile_option
def demo(profile: str) -> None:
    """Materialize the whole asset graph and print what came out."""
    from caco_assets.commands.demo_summary import summary
    from caco_assets.commands.preflight import preflight
    from caco_assets.definitions import build_definitions
    from caco_assets.orchestration.in_process import materialize

    resolved = settings_of(profile)
    preflight(resolved)
    materialize(build_definitions(resolved, profile).resolve_job_def("chain"), resolved)
    click.echo(summary(resolved))


@click.command()
@profile_option
@click.option("--dagster-port", default=3000, show_default=True)
@click.option("--mlflow-port", default=5000, show_default=True)
@click.option("--pages-port", default=3001, show_default=True)
@click.option("--allow-host", "allow_hosts", multiple=True, metavar="NAME", help="Another host name to serve, such as a proxy's.")
def up(profile: str, dagster_port: int, mlflow_port: int, pages_port: int, allow_hosts: tuple[str, ...]) -> None:
    """Dagster UI, MLflow UI and the workspace's pages on loopback; one Ctrl-C stops all. Uses a free port if one is taken.

    A process that ends is started again. Pages of other web sites, and host names other than loopback's, are refused.
    """
    from caco_assets.services.local_stack import serve

    ports = {"dagster_port": dagster_port, "mlflow_port": mlflow_port, "pages_port": pages_port}
    serve(settings_of(profile), **ports, allow_hosts=allow_hosts)
