"""Commands for external encoders."""

from __future__ import annotations

from pathlib import Path

import click

from caco_assets.commands.shared import profile_option, settings_of, show, split_names


@click.group()
def encoder() -> None:
    """Pretraining: external encoders."""


@encoder.command("import")
@profile_option
@click.argument("weights")
@click.option("--as", "name", required=True, help="Its name: the encoder will lie in encoders/NAME of the workspace.")
@click.option("--source", help="seco, caco, imagenet or torchgeo:NAME; default what the file gives away.")
@click.option("--backbone", help="Architecture, by timm's name; default by the shapes of the weights.")
@click.option("--bands", help="Bands in the order of the network's input, separated by commas; default the source's.")
@click.option("--size", type=click.IntRange(min=32, max=4096), help="Side of the input in pixels; default the source's.")
@click.option(
    "--preprocessing",
    type=click.Path(path_type=Path),
    help="JSON file, as in encoder.json, in place of the source's preprocessing.",
)
@click.option("--prefix", help="What stands before the names of the network's tensors in the file; default the usual ones.")
@click.option("--max-gb", type=click.FloatRange(min=0, min_open=True), default=32.0, show_default=True, help="Largest file read.")
def import_(
    profile: str,
    weights: str,
    name: str,
    source: str | None,
    backbone: str | None,
    bands: str | None,
    size: int | None,
    preprocessing: Path | None,
    prefix: str | None,
    max_gb: float,
) -> None:
    """Import an encoder from WEIGHTS: a .ckpt, .pth or .safetensors file, an encoder's folder, or torchgeo:NAME.

    Only tensors are read; no code in the file is run.
    """
    from caco_assets.pretraining.pretrained.import_weights import Wish, import_encoder

    wish = Wish(source, backbone, split_names(bands), size, preprocessing, prefix, max_gb)
    show(import_encoder(settings_of(profile), weights, name, wish))
