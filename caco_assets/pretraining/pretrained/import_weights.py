"""Imports published weights as an encoder folder that can be evaluated and registered."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_json, read_object
from caco_assets.core.products import Facts, Product, produce
from caco_assets.core.stage_versions import stage_version
from caco_assets.settings import Settings
from caco_assets.settings.names import why_not

if TYPE_CHECKING:
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.encoder.preprocessing import Preprocessing
    from caco_assets.pretraining.pretrained.sources import Source

logger = logging.getLogger(__name__)

_IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Wish:
    """User overrides for the import; anything not set is detected from the file and its source."""

    source: str | None = None
    """See `sources.find_source`."""
    backbone: str | None = None
    """A timm name."""
    bands: tuple[str, ...] | None = None
    size: int | None = None
    """Default side of the input, pixels."""
    preprocessing: Path | None = None
    """A JSON file with the complete preprocessing, replacing that of the source."""
    prefix: str | None = None
    """What stands before the names of the network's tensors in the file; see `tensors.read_tensors`."""
    max_gb: float = 32.0
    """Largest file that is read, in GB."""


def import_encoder(settings: Settings, weights: str, name: str, wish: Wish | None = None) -> Product:
    """Create `encoders/NAME` from published weights.

    Args:
        settings: the profile, in whose workspace the encoder is written.
        weights: a file of weights, an encoder folder, or `torchgeo:<name>` for a file in torch's cache.
        name: of the encoder.
        wish: source, architecture and preprocessing, where they cannot be detected from the file.

    Raises:
        UserError: the file is missing, holds no known network, or its source is not given.
    """
    from caco_assets.pretraining.pretrained.sources import TORCHGEO, torchgeo_file

    wish = wish or Wish()
    if (wrong := why_not(name)) is not None:
        raise UserError(f"--as {name}: {wrong}")
    path = Path(weights)
    if weights.startswith(TORCHGEO):
        wish, path = replace(wish, source=wish.source or weights), torchgeo_file(weights.removeprefix(TORCHGEO))
        if not path.is_file():
            raise UserError(f"{weights}: {path} is not there; fetch it from torchgeo's address for these weights and put it there")
    if not path.exists():
        raise UserError(f"{path}: no such file of weights")
    digest = _sha256(path)
    override = read_json(wish.preprocessing) if wish.preprocessing and wish.preprocessing.is_file() else None

    def make(folder: Path) -> Facts:
        origin = {"file": path.name, "sha256": digest}
        # scores of another encoder with this name
        settings.paths.encoder_scores(name).unlink(missing_ok=True)
        encoder, about = _own(path, origin) if path.is_dir() else _foreign(path, wish, origin)
        encoder.save(folder, about, {"imported": origin})
        logger.info(f"encoder {name}: {encoder.architecture}, bands {', '.join(encoder.preprocessing.bands)}; {about['source']}")
        wanted = {"bands": list(encoder.preprocessing.bands), "stretch": encoder.preprocessing.stretch.name}
        return {
            "architecture": encoder.architecture,
            "features": encoder.width,
            **wanted,
            "size": encoder.preprocessing.size,
            **about,
        }

    wanted = {**asdict(wish), "preprocessing": override if override is not None else str(wish.preprocessing)}
    # the limit changes no encoder; without a prefix, imports have the fingerprint that they had before there was one
    wanted = {name: value for name, value in wanted.items() if name != "max_gb" and (name, value) != ("prefix", None)}
    return produce(
        f"encoders/{name}",
        settings.paths.encoders / name,
        records=settings.paths.records,
        recipe=stage_version("imported_encoder"),
        inputs={"sha256": digest, "file": path.name, **wanted},
        make=make,
    )


def encoder_folder(settings: Settings, name: str) -> Path:
    """The folder of an encoder by its name in the workspace, or by path.

    Raises:
        UserError: neither exists; lists the available names.
    """
    known = settings.paths.encoders / name
    for folder in (known, Path(name)):
        if (folder / "encoder.json").is_file():
            return folder
    names = sorted(path.parent.name for path in settings.paths.encoders.glob("*/encoder.json"))
    raise UserError(
        f"--encoder {name}: no encoder of that name and no folder of one; there are {', '.join(names) or 'none'}; "
        "`caco encoder import` brings one in"
    )


def _foreign(path: Path, wish: Wish, origin: dict[str, str]) -> tuple[Encoder, dict[str, Any]]:
    """The encoder in a file of weights, and its metadata."""
    from caco_assets.pretraining.encoder.backbones import match_positions
    from caco_assets.pretraining.encoder.encoder import Encoder
    from caco_assets.pretraining.pretrained.sources import find_source
    from caco_assets.pretraining.pretrained.state_dicts import architecture_of, check_fits, fill, find_backbone
    from caco_assets.pretraining.pretrained.tensors import read_tensors

    found = find_backbone(read_tensors(path, wish.prefix, wish.max_gb))
    source = find_source(wish.source or _guess(path, found.sequential, found.head))
    preprocessing = _preprocessing(wish, source)
    if len(preprocessing.bands) != found.bands:
        raise UserError(
            f"{path}: the network takes {found.bands} bands, the preprocessing of {source.name} has {len(preprocessing.bands)} "
            f"({', '.join(preprocessing.bands)}); name them with --bands, in order"
        )
    architecture = wish.backbone or architecture_of(found)
    check_fits(found, architecture, len(preprocessing.bands), preprocessing.size)
    encoder = Encoder.random(architecture, preprocessing, seed=0)
    match_positions(encoder.backbone, found.tensors)
    fill(encoder.backbone, found)
    prefix = f"{wish.prefix.rstrip('.')}." if wish.prefix else ""
    layout = f"{prefix}{found.prefix}{'0…7 (children of a torchvision ResNet)' if found.sequential else ''}" or "plain"
    return encoder.eval(), {"objective": f"imported from {source.name}", "source": source.text, "layout": layout, **origin}


def _own(folder: Path, origin: dict[str, str]) -> tuple[Encoder, dict[str, Any]]:
    """An encoder of this project, and the metadata on its training from its description."""
    from caco_assets.pretraining.encoder.encoder import DESCRIPTION, Encoder

    encoder = Encoder.load(folder)
    about = read_object(folder / DESCRIPTION).get("recipe")
    return encoder, {"source": "an encoder of caco_assets", **(about if isinstance(about, dict) else {}), **origin}


def _preprocessing(wish: Wish, source: Source) -> Preprocessing:
    from caco_assets.pretraining.encoder.preprocessing import Preprocessing
    from caco_assets.pretraining.encoder.stretch import Stretch
    from caco_assets.pretraining.pretrained.sources import from_json

    wanted = from_json(wish.preprocessing) if wish.preprocessing else source.preprocess()
    if wish.bands and len(wish.bands) != len(wanted.bands):
        wanted = Preprocessing.of_pack(wish.bands, wanted.stretch.name, wanted.size)
    elif wish.bands:
        wanted = replace(wanted, bands=wish.bands, stretch=Stretch.named(wanted.stretch.name, wish.bands))
    return replace(wanted, size=wish.size) if wish.size else wanted


def _guess(path: Path, sequential: bool, head: tuple[int, ...]) -> str:
    """The source, if it can be detected from the file.

    Raises:
        UserError: it cannot.
    """
    from caco_assets.pretraining.pretrained.sources import SOURCES, torchgeo_of

    if sequential:
        # both have the same layout and preprocessing; only the attribution depends on the name
        return "caco" if "caco" in path.name.lower() else "seco"
    if head and head[0] == _IMAGENET_CLASSES:
        return "imagenet"
    if named := torchgeo_of(path.name):
        return named
    raise UserError(
        f"{path}: the file does not say where its weights come from, and so not what they want to see; name the source with "
        f"--source ({', '.join(SOURCES)}, torchgeo:<name>)"
    )


def _sha256(path: Path) -> str:
    """SHA-256 of a file, or of an encoder's two files one after the other."""
    files = [path / name for name in ("encoder.safetensors", "encoder.json")] if path.is_dir() else [path]
    digest = hashlib.sha256()
    for file in files:
        if not file.is_file():
            raise UserError(
                f"{path}: no encoder here ({file.name} is missing); give a file of weights, or the folder of an encoder"
            )
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
