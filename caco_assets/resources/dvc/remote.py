"""Writes `versions.remote` to `.dvc/config.local`, so that `dvc push` at a prompt uses the same remote."""

from __future__ import annotations

import configparser
import io
from pathlib import Path

from caco_assets.core.atomic import write_atomic
from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_text
from caco_assets.settings import Settings

NAME = "setting"
"""The remote's name in DVC's configuration."""
_SECTION = f"'remote \"{NAME}\"'"


def set_remote(settings: Settings) -> None:
    """Update the untracked `.dvc/config.local` to match `versions.remote`; other entries are kept.

    Raises:
        UserError: the file is not a valid configuration.
    """
    path = settings.home / ".dvc" / "config.local"
    old = read_text(path, "repair it, or delete it") if path.exists() else ""
    config = configparser.ConfigParser(interpolation=None)
    config.optionxform = str  # pyright: ignore[reportAttributeAccessIssue] - names of options keep their case
    try:
        config.read_string(old)
    except configparser.Error as error:
        raise UserError(f"{path}: not readable as DVC's configuration ({' '.join(str(error).split())}); repair it") from error
    if not _change(config, settings):
        return
    text = io.StringIO()
    config.write(text)
    write_atomic(path, text.getvalue())


def _change(config: configparser.ConfigParser, settings: Settings) -> bool:
    """Update `config` to match the settings; True if it changed."""
    wanted = _wanted(settings)
    known = dict(config[_SECTION]) if config.has_section(_SECTION) else {}
    chosen = config.get("core", "remote", fallback=None) == NAME
    if wanted == known and chosen == bool(wanted):
        return False
    config.remove_section(_SECTION)
    if wanted:
        config[_SECTION] = wanted
        if not config.has_section("core"):
            config.add_section("core")
        config["core"]["remote"] = NAME
    elif chosen:
        config.remove_option("core", "remote")
    return True


def _wanted(settings: Settings) -> dict[str, str]:
    remote, endpoint = settings.versions.remote, settings.versions.endpoint
    if remote is None:
        return {}
    # DVC would resolve a relative folder against `.dvc`
    url = remote if "://" in remote else str((settings.home / Path(remote).expanduser()).resolve())
    return {"url": url, **({"endpointurl": endpoint} if endpoint else {})}
