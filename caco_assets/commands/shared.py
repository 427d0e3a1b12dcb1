"""Helpers shared by the commands: the profile option, its settings and the display of a product."""

from __future__ import annotations

import json

import click

from caco_assets.core.products import Product
from caco_assets.observability.logs import bind
from caco_assets.settings import Settings, load_settings

profile_option = click.option(
    "--profile", envvar="CACO_PROFILE", default="embedded", show_default=True, help="Name of a profile, or path to a YAML file."
)


def settings_of(profile: str, *, writes: bool = True) -> Settings:
    """Load the profile's settings and, for a command that writes, prepare its home folder.

    A command that only reads also works in a home on a read-only file system, and makes no home of the folder it runs in.
    """
    from caco_assets.resources.dvc.home import ensure_home

    settings = load_settings(profile)
    bind(profile=settings.profile, vintage=settings.vintage)
    if writes:
        ensure_home(settings)
    return settings


def show(product: Product) -> None:
    """Print a stage's product: its path, its hash and its facts, one per line."""
    state = "unchanged" if product.reused else "made"
    click.echo(f"{product.name}: {state} {product.path} ({product.content_hash})")
    for name, value in product.facts.items():
        click.echo(f"  {name}: {json.dumps(value, default=str, ensure_ascii=False)}")


def split_names(text: str | None) -> tuple[str, ...] | None:
    """The names in an option that separates them by commas, without the blanks around them; None: the option is not given."""
    return None if text is None else tuple(name.strip() for name in text.split(",") if name.strip())
