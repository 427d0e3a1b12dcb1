"""Exports an encoder to the formats that other tools load, and checks that they all give the same features."""

from __future__ import annotations

import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from caco_assets.core.errors import UserError
from caco_assets.pretraining.encoder.encoder import Encoder
from caco_assets.registry.package.mlflow_model import download, files_of
from caco_assets.registry.release.reflectance_network import ReflectanceNetwork
from caco_assets.registry.versions import find
from caco_assets.resources.mlflow.client import Tracking, open_tracking
from caco_assets.settings import Settings

logger = logging.getLogger(__name__)

TIMM, ONNX, EXPORTED, ITEM, PARITY = "timm.safetensors", "encoder.onnx", "encoder.pt2", "item.json", "parity.json"
FILES = {TIMM: "timm", EXPORTED: "exported", ONNX: "onnx"}
"""File → name of the format in settings and STAC."""
KEYS = tuple(FILES.values())
TOLERANCE = 1e-3
"""Largest difference of a feature, in standard deviations of the features, at which two formats count as equal."""
_IMAGES = 4
_LARGEST_BATCH = 4096


def export_version(settings: Settings, uri: str, out: Path, tracking: Tracking | None = None) -> dict[str, float]:
    """Export an encoder to the folder `out`; see `export`.

    Args:
        settings: the profile.
        uri: `models:/name@champion`, `models:/name/3`, or the folder of an encoder.
        out: folder to create; an older export there is replaced.
        tracking: default: opened here if `uri` names a registered version.

    Returns:
        Format → largest difference from the encoder's own features, in their standard deviations.

    Raises:
        UserError: no such encoder, `out` holds something else, or an export does not give the encoder's features.
    """
    if not uri.startswith("models:/"):
        return export_files(files_of(Path(uri), uri), out, name=Path(uri).name, vintage=settings.vintage)
    tracking = tracking or open_tracking(settings)
    version = find(tracking, uri)
    with tempfile.TemporaryDirectory() as scratch:
        files = files_of(download(tracking, version, Path(scratch)), uri)
        vintage = version.tags.get("vintage", settings.vintage)
        return export_files(files, out, name=f"{version.name}-{version.version}", vintage=vintage)


def export_files(source: Path, target: Path, *, name: str, vintage: str, forms: Sequence[str] = KEYS) -> dict[str, float]:
    """`export` of the encoder in the folder `source`, whose training data end with the month `vintage` (`YYYY-MM`).

    Raises:
        UserError: as `export`, there is no valid encoder, or `target` is not an earlier export.
    """
    if target.exists() and not (target.is_dir() and (target / PARITY).is_file()) and (target.is_file() or any(target.iterdir())):
        raise UserError(f"--out {target}: exists and is not an export; name another folder")
    year, month = (int(part) for part in vintage.split("-"))
    # the last day of the month, whatever its length
    when = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC) - timedelta(days=1)
    encoder = Encoder.load(source)
    about = f"{encoder.architecture}, self-supervised on bands {', '.join(encoder.preprocessing.bands)}; features of whole images."
    return export(encoder, source, target, name=name, when=when, about=about, forms=forms)


def export(
    encoder: Encoder,
    source: Path,
    target: Path,
    *,
    name: str,
    when: datetime,
    about: str,
    forms: Sequence[str] = KEYS,
) -> dict[str, float]:
    """Export an encoder to the folder `target`, which is written completely or not at all.

    `encoder.safetensors` and `encoder.json` are ours (`Encoder.load`); `timm.safetensors` is what
    `timm.create_model(architecture, num_classes=0, in_chans=…, checkpoint_path=…)` takes, which expects normalized input;
    `encoder.onnx` and `encoder.pt2` take reflectance × 10 000; `item.json` describes all of them as STAC.

    Args:
        encoder: loaded from `source`.
        source: its folder.
        target: folder to create; an older export is replaced.
        name: of model and version.
        when: reference date of the training data.
        about: one sentence for the description.
        forms: the formats to write, of `timm`, `exported` and `onnx`.

    Returns:
        File → largest difference from the encoder's own features, in their standard deviations (also in `parity.json`).

    Raises:
        UserError: an export does not give the encoder's features; nothing is left behind.
    """
    from caco_assets.registry.release.stac_mlm_item import write_item

    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for file in ("encoder.safetensors", "encoder.json"):
            shutil.copyfile(source / file, partial / file)
        encoder = encoder.to("cpu").eval()
        network = ReflectanceNetwork(encoder).eval()
        images = _images(encoder)
        with torch.no_grad():
            wanted = _own(encoder, images)
        found: dict[str, float] = {}
        for form, write in _FORMS.items():
            if FILES.get(form) not in (None, *forms):
                continue
            logger.info(f"export {name}: {form}")
            found[form] = _difference(write(encoder, network, images, partial / form), wanted)
        if wrong := [f"{form} differs by {difference:.2g}" for form, difference in found.items() if not difference < TOLERANCE]:
            raise UserError(
                f"{name}: {', '.join(wrong)} standard deviations of the features (at most {TOLERANCE:g}); this export would "
                "not be the encoder that was evaluated"
            )
        (partial / PARITY).write_text(json.dumps(found, indent=1) + "\n")
        kinds = {"timm": "timm", "onnx": "onnx", "exported": "torch.export"}
        assets = {"weights": (partial / "encoder.safetensors", "safetensors")}
        assets |= {FILES[form]: (partial / form, kinds[FILES[form]]) for form in found}
        write_item(partial / ITEM, encoder, assets, name=name, when=when, about=about)
        shutil.rmtree(target, ignore_errors=True)
        partial.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return found


def _images(encoder: Encoder) -> torch.Tensor:
    """int32 (4, C, S, S): fixed archive values over their range, more of them dark, as on land."""
    wanted = encoder.preprocessing
    shape = (_IMAGES, len(wanted.bands), wanted.size, wanted.size)
    return torch.from_numpy((np.random.default_rng(0).random(shape) ** 2 * 6000).astype(np.int32))


def _own(encoder: Encoder, images: torch.Tensor) -> np.ndarray:
    """The features of `Encoder.features`."""
    from dataclasses import replace

    from caco_assets.pretraining.encoder.encoder import ARCHIVE

    return encoder.features(images.numpy().astype(np.uint16), replace(ARCHIVE, bands=encoder.preprocessing.bands))


def _timm(encoder: Encoder, network: ReflectanceNetwork, images: torch.Tensor, path: Path) -> np.ndarray:
    import timm

    save_file({name: tensor.contiguous() for name, tensor in encoder.backbone.state_dict().items()}, path)
    options: dict[str, Any] = {"num_classes": 0, "in_chans": len(encoder.preprocessing.bands)}
    if "vit" in encoder.architecture:
        options["img_size"] = encoder.preprocessing.size
    with torch.random.fork_rng(devices=[]):
        loaded = timm.create_model(encoder.architecture.partition(".")[0], **options, checkpoint_path=str(path)).eval()
    stretched = torch.stack([network.table[c][images.long()[:, c]] for c in range(images.shape[1])], dim=1)
    with torch.no_grad():
        return loaded(stretched).numpy()


def _exported(encoder: Encoder, network: ReflectanceNetwork, images: torch.Tensor, path: Path) -> np.ndarray:  # noqa: ARG001
    torch.export.save(_program(network, images), path)
    with torch.no_grad():
        return torch.export.load(path).module()(images[:3]).numpy()


def _onnx(encoder: Encoder, network: ReflectanceNetwork, images: torch.Tensor, path: Path) -> np.ndarray:  # noqa: ARG001
    import onnxruntime

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        # warnings about torch's own code, and its progress output
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            _program(network, images), dynamo=True, input_names=["reflectance"], output_names=["features"], verbose=False
        )
    if program is None:
        raise UserError("onnx: torch.onnx.export returned no program")
    program.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(["features"], {"reflectance": images[:3].numpy()})[0])


def _program(network: ReflectanceNetwork, images: torch.Tensor) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch", min=1, max=_LARGEST_BATCH)
    return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))


_FORMS: dict[str, Callable[[Encoder, ReflectanceNetwork, torch.Tensor, Path], np.ndarray]] = {
    TIMM: _timm,
    EXPORTED: _exported,
    ONNX: _onnx,
}


def _difference(found: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference in standard deviations; `found` may cover fewer images, to test another batch size."""
    part = wanted[: len(found)]
    return float(np.abs(found - part).max() / max(wanted.std(), 1e-12)) if np.isfinite(found).all() else float("inf")
