"""Commands for the lineage of versions: `caco lineage`, `caco restore`, `caco gc`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from caco_assets.commands.shared import profile_option, settings_of
from caco_assets.core.errors import UserError


@click.command()
@click.argument("what")
@click.argument("digest", metavar="[HASH]", required=False)
@profile_option
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def lineage(what: str, digest: str | None, profile: str, as_json: bool) -> None:
    """Registry: what made the version WHAT (models:/name@champion), as a tree; or, with `data HASH`, what used these bytes.

    HASH is the md5 of a product, of a shard or of a file in one, as Dagster, DVC and the tree show it, or its first characters.
    """
    from caco_assets.registry.lineage.tree import lineage_json, lineage_tree
    from caco_assets.registry.lineage.usage import use_of
    from caco_assets.resources.mlflow.client import open_tracking

    if (what == "data") != (digest is not None):
        raise UserError(
            f"caco lineage {what} {digest or ''}: write `caco lineage models:/NAME@champion` or `caco lineage data HASH`"
        )
    settings = settings_of(profile, writes=False)
    tracking = open_tracking(settings)
    if digest is None:
        click.echo(json.dumps(lineage_json(tracking, what), indent=1) if as_json else lineage_tree(tracking, what))
        return
    use = use_of(settings, tracking, digest)
    click.echo(json.dumps({**asdict(use), "touched": use.touched}, indent=1) if as_json else use.text())


@click.command()
@click.argument("uri")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder of the new home.")
@profile_option
def restore(uri: str, out: Path, profile: str) -> None:
    """Registry: restore the data and settings that made the version URI into a separate home folder."""
    from caco_assets.registry.lineage.restore import restore as run

    click.echo(run(settings_of(profile), uri, out).text())


@click.command()
@profile_option
@click.option("--yes", is_flag=True, help="Delete what is shown.")
@click.option("--remote", is_flag=True, help="Look at DVC's remote too; only where no other home pushes there.")
@click.option("--older-than", default=14.0, show_default=True, help="Days that remains of interrupted work and caches must be old.")
def gc(profile: str, yes: bool, remote: bool, older_than: float) -> None:
    """Registry: show data that no version, branch, tag or profile references; with --yes, delete it."""
    from tqdm import tqdm

    from caco_assets.registry.lineage.gc import find_garbage

    with find_garbage(settings_of(profile), remote=remote, older_than_days=older_than) as found:
        click.echo(found.text())
        if not found.bytes:
            click.echo("nothing to delete")
        elif yes:
            found.delete()
            click.echo(f"deleted: {tqdm.format_sizeof(found.bytes, 'B')}")
        else:
            click.echo(f"{tqdm.format_sizeof(found.bytes, 'B')} would be freed; nothing was deleted: --yes does that")
