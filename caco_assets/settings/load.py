"""Reads a profile (YAML) by name; `CACO_…` variables win over it (`CACO_SAMPLING__PLACES=64`)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from caco_assets.core.errors import UserError
from caco_assets.core.foreign_files import read_yaml
from caco_assets.settings.deployment import enter
from caco_assets.settings.error_messages import check_environment, explain, not_json
from caco_assets.settings.model import Settings
from caco_assets.settings.names import why_not_profile
from caco_assets.settings.renamed import current_names

PROFILES = Path(__file__).parents[1] / "profiles"


def profile_names() -> list[str]:
    """The profiles that ship with the package."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def find_home() -> Path:
    """`CACO_HOME`, else the nearest parent folder with `dvc.yaml`, else the working directory."""
    if home := os.environ.get("CACO_HOME"):
        return Path(home).expanduser().resolve()
    here = Path.cwd().resolve()
    return next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), here)


def load_settings(profile: str | None = None, home: Path | None = None, **overrides: Any) -> Settings:
    """Read a profile by name (or a path to a YAML file) and check every value.

    Args:
        profile: name in `profiles/` or path to a `.yaml`; default `CACO_PROFILE`, else `embedded`.
        home: default `find_home()`.
        overrides: nested values that win over the profile (not over the environment).

    Raises:
        UserError: no such profile, an unknown key, a value that is not allowed, or a variable that `CACO_DEPLOYMENT` needs is
            missing; names the field, the value and what is allowed.
    """
    name = profile or os.environ.get("CACO_PROFILE") or "embedded"
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.exists():
        choices = ", ".join(profile_names())
        raise UserError(f"profile={name}: there is no such profile; choose one of {choices}, or give a path to a .yaml file")
    if (wrong := why_not_profile(path.stem)) is not None:
        raise UserError(f"profile={name}: {wrong}; rename the file")
    home = (home or find_home()).resolve()
    values = read_yaml(path) or {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: a profile is a mapping of section names, got {type(values).__name__}")
    check_environment()
    deployment = enter()
    try:
        settings = Settings(
            **{**_expand(_merge(current_names(values), current_names(overrides)), home), "profile": path.stem, "home": home}
        )
    except ValidationError as error:
        raise UserError(explain(path.stem, error)) from error
    except (SettingsError, RecursionError) as error:
        raise UserError(not_json(str(error))) from error
    deployment.check(settings)
    return settings


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        # another source type has other fields, so none of the old ones are kept
        other = both and value.get("kind", merged[key].get("kind")) != merged[key].get("kind")
        merged[key] = _merge(merged[key], value) if both and not other else value
    return merged


def _expand(value: Any, home: Path) -> Any:
    """Replace `${NAME}` by the environment's value; `CACO_REAL` and `CACO_DATA` default to folders beside and below home."""
    defaults = {"CACO_REAL": str(home.parent / "shared" / "real"), "CACO_DATA": str(home / "data")}
    if isinstance(value, dict):
        return {key: _expand(item, home) for key, item in value.items()}
    if isinstance(value, list):
        return [_expand(item, home) for item in value]
    if isinstance(value, str):
        known = defaults | dict(os.environ)
        for name in re.findall(r"\$\{(\w+)\}", value):
            if name not in known:
                raise UserError(f"{value}: {name} is not set in the environment; set it, or write the path out")
        return re.sub(r"\$\{(\w+)\}", lambda match: known[match[1]], value)
    return value
