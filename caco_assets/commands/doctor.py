"""The command `caco doctor`: looks at a home without changing it, and says what is wrong with it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import click

from caco_assets.commands.shared import profile_option, settings_of
from caco_assets.core.errors import UserError, one_line
from caco_assets.settings import Settings

_LOW_BYTES = 1 << 30
"""Less free space than this is reported: a small run needs some hundred megabytes."""


@click.command()
@profile_option
@click.option("--deep", is_flag=True, help="Compare every byte of every product with its record.")
def doctor(profile: str, deep: bool) -> None:
    """Check this home: disk, files, registry, products. Changes nothing. Exit status 1 when something is wrong."""
    settings = settings_of(profile, writes=False)
    wrong = 0
    for what, look in checks(settings, deep=deep).items():
        found = list(_found(look))
        wrong += len(found)
        click.echo(f"{what}: {'ok' if not found else f'{len(found)} wrong'}")
        for line in found:
            click.echo(f"  {line}")
    if wrong:
        raise click.exceptions.Exit(1)


def checks(settings: Settings, *, deep: bool = False) -> dict[str, Callable[[], Iterator[str]]]:
    """What is looked at → a function that yields one line for each thing wrong."""
    return {
        f"home {settings.home}": lambda: _home(settings),
        "files": lambda: _files(settings),
        "registry": lambda: _registry(settings),
        "products": lambda: _products(settings, deep=deep),
    }


def _found(look: Callable[[], Iterator[str]]) -> Iterator[str]:
    try:
        yield from look()
    except (UserError, OSError) as error:
        yield one_line(error, 500)


def _home(settings: Settings) -> Iterator[str]:
    there = next(folder for folder in (settings.paths.workspace, *settings.paths.workspace.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        yield f"{there}: cannot be written to; commands that only read work"
    if (free := shutil.disk_usage(there).free) < _LOW_BYTES:
        yield f"{there}: {free / 1e6:.0f} MB are free; `caco gc` shows what can be deleted"
    if not (settings.home / "dvc.yaml").exists():
        yield "no dvc.yaml: the first command that writes makes a home of this folder"


def _files(settings: Settings) -> Iterator[str]:
    from caco_assets.registry.promotion.policy import read_policy
    from caco_assets.resources.dvc.repo import history, stages_of
    from caco_assets.resources.vintages import finished

    for read in (read_policy, stages_of, history, finished):
        try:
            read(settings)
        except UserError as error:
            yield str(error)


def _registry(settings: Settings) -> Iterator[str]:
    from caco_assets.resources.mlflow.client import local_store
    from caco_assets.resources.mlflow.moved_home import foreign_addresses, missing_versions

    if (store := local_store(settings)) is None:
        return
    database, artifacts = store
    for foreign in foreign_addresses(database, artifacts):
        yield (
            f"{foreign.count} addresses of artifacts lead to {foreign.root}, out of this home: it was moved or copied; the next "
            "command that opens the registry corrects them"
        )
        yield from (f"{foreign.root}{version}: was not copied; it belongs below {artifacts}" for version in foreign.lost)
    for name, folder in missing_versions(database, artifacts):
        yield f"{name}: its files are missing ({folder}); restore them from a backup, or register the encoder again"


def _products(settings: Settings, *, deep: bool) -> Iterator[str]:
    from caco_assets.core.products import recorded, verified, verify

    records = settings.paths.records
    for file in sorted(records.rglob("*.json")):
        name = file.relative_to(records).with_suffix("").as_posix()
        try:
            product = recorded(records, name)
            if deep:
                verify(records, product)
            elif product.path.exists():
                verified(records, name, note=False)
            else:
                yield f"{product.path}: missing, though {name} is recorded"
        except UserError as error:
            yield str(error)
