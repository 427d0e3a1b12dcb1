"""Commands on the archive of chips: `caco archive …`."""

from __future__ import annotations

import click

from caco_assets.commands.shared import profile_option, settings_of
from caco_assets.errors import UserError


@click.group()
def archive() -> None:
    """The archive of chips."""


@archive.command("ls")
@profile_option
def archive_ls(profile: str) -> None:
    """Shards with their chips, places and bytes."""
    from caco_assets.imagery.archive import ls

    for line in ls(settings_of(profile).paths.archive):
        click.echo(line)


@archive.command("verify")
@profile_option
def archive_verify(profile: str) -> None:
    """Read every chip and compare its checksum."""
    from caco_assets.imagery.archive import verify

    problems = verify(settings_of(profile).paths.archive)
    for line in problems:
        click.echo(line, err=True)
    if problems:
        raise UserError(f"{len(problems)} chips are damaged; delete their shard folders and run `caco ingest` again")
    click.echo("every chip is what its index says")
