"""Home folders (`dvc.yaml`, `.dvc/`, `mlflow/`, `workspace/`): a checkout is one, and any other folder becomes one on first use."""

from __future__ import annotations

import errno
import os
import re
import shutil
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError, storage_error
from caco_assets.core.foreign_files import read_text
from caco_assets.resources.dvc.remote import set_remote
from caco_assets.settings import Settings

_PACKAGE = Path(__file__).parents[2]
# beside the package in a checkout, inside it in an installed wheel
_TEMPLATE = _PACKAGE.parent if (_PACKAGE.parent / "dvc.yaml").exists() else _PACKAGE / "_home"
_PROBED_LINE = re.compile(r"^(\s*- probed: )\[(.*)\]$", re.MULTILINE)
# the profile and model in the template's artifact names, which a new home replaces by its own
_LIKE, _MODEL = "embedded", "caco-resnet18"
_RESTORE = "restore it, or delete it: it is then made from the template"
_PROFILES_LINE = re.compile(r"^(\s*- profiles: )\[(.*)\]$", re.MULTILINE)


def ensure_home(settings: Settings) -> None:
    """Make `settings.home` a home folder if it is not one yet. Existing files are kept; only DVC's remote follows the settings.

    Raises:
        UserError: the workspace cannot be written to, or the home's `dvc.yaml` does not list the profile, so its data would not be
            versioned.
    """
    home = settings.home
    _check_writable(settings.paths.workspace)
    pipeline = home / "dvc.yaml"
    if not pipeline.exists():
        template = (_TEMPLATE / "dvc.yaml").read_text()
        probed = settings.profile if settings.pretraining.probe_task else ""
        template = _artifacts_of(_PROBED_LINE.sub(rf"\g<1>[{probed}]", template), settings)
        write_atomic(pipeline, _PROFILES_LINE.sub(rf"\g<1>[{settings.profile}]", template))
    for name in (".dvc/config", ".dvcignore", "mlflow/promotion.yaml", "mlflow/model_card.md.j2", "mlflow/release_card.md.j2"):
        if not (home / name).exists():
            (home / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_TEMPLATE / name, home / name)
    if not (home / ".git").exists() and not _inside_git(home):
        config = home / ".dvc" / "config"
        text = read_text(config, _RESTORE)
        if "no_scm" not in text:
            write_atomic(config, text.replace("[core]\n", "[core]\n    no_scm = true\n"))
    set_remote(settings)
    listed = _PROFILES_LINE.search(read_text(pipeline, _RESTORE))
    if listed is not None and settings.profile not in [name.strip() for name in listed[2].split(",")]:
        raise UserError(
            f"profile={settings.profile}: not among the `profiles` of {pipeline} ({listed[2]}), so its data would not be "
            "versioned; add it there"
        )


def template(name: str) -> Path:
    """The template of a file in a new home folder."""
    return _TEMPLATE / name


def _artifacts_of(template: str, settings: Settings) -> str:
    """The template with `artifacts:` (the last section, one per line) renamed for this profile's data sets and model."""
    head, mark, entries = template.partition("\nartifacts:\n")
    # DVC's artifact names allow no underscore
    data, model = (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") for name in (settings.profile, settings.registry.model))
    own = [line.replace(f"{_LIKE}-", f"{data}-", 1) for line in entries.splitlines(keepends=True) if f"  {_LIKE}-" in line]
    own += [line.replace(_MODEL, model) for line in entries.splitlines(keepends=True) if f"  {_MODEL}:" in line]
    return head + mark + "".join(own).replace(f"workspace/{_LIKE}/", f"workspace/{settings.profile}/")


def _check_writable(workspace: Path) -> None:
    """Fail before any work is done, which could not be stored."""
    there = next(folder for folder in (workspace, *workspace.parents) if folder.exists())
    if not os.access(there, os.W_OK):
        code = errno.EROFS if os.statvfs(there).f_flag & os.ST_RDONLY else errno.EACCES
        raise storage_error(OSError(code, os.strerror(code), str(there))) or AssertionError


def _inside_git(folder: Path) -> bool:
    return any((parent / ".git").exists() for parent in folder.parents)
