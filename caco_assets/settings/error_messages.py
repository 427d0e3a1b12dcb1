"""One-line errors of a profile or a `CACO_…` variable: field, value, what is allowed."""

from __future__ import annotations

import difflib
import json
import os
from typing import Any

from pydantic import BaseModel, ValidationError

from caco_assets.core.errors import UserError, explain_validation
from caco_assets.settings.downstream import TaskData
from caco_assets.settings.imagery import Imagery
from caco_assets.settings.imagery_sources import SOURCES
from caco_assets.settings.model import Settings


def check_environment() -> None:
    """Reject a `CACO_…` variable that looks like a setting but names none, because it would be silently ignored."""
    for name in sorted(os.environ):
        if not name.upper().startswith("CACO_") or name.upper() in ("CACO_HOME", "CACO_PROFILE", "CACO_DEPLOYMENT"):
            continue
        section, nested, _ = name.upper().removeprefix("CACO_").lower().partition("__")
        if section in Settings.model_fields:
            continue
        close = difflib.get_close_matches(section, Settings.model_fields, n=1, cutoff=0.8)
        if nested or close:
            hint = f"did you mean CACO_{close[0].upper()}? " if close else ""
            raise UserError(f"{name}={os.environ[name]}: no such setting; {hint}sections: {', '.join(Settings.model_fields)}")


def not_json(message: str) -> str:
    """Which variable of the section that pydantic names holds a list or mapping that is not JSON."""
    wrong = []
    for name, value in sorted(os.environ.items()):
        section = name.upper().removeprefix("CACO_").lower().partition("__")[0]
        if name.upper().startswith("CACO_") and (f'"{section}"' in message or "recursion" in message):
            try:
                json.loads(value)
            except (ValueError, RecursionError):
                wrong.append(f"{name}={value[:100]}")
    return f'{"; ".join(wrong)}: a list or a section is written as JSON, such as [1, 2] or {{"places": 64}}'


def explain(profile: str, error: ValidationError) -> str:
    """The first problem in one line: field, value, what is allowed."""
    problem = error.errors()[0]
    variable = "CACO_" + "__".join(str(part) for part in problem["loc"]).upper()
    if variable in os.environ:
        profile = f"{profile} with {variable}"
    if problem["type"] == "extra_forbidden":
        allowed = _fields_at(problem["loc"][:-1])
        close = difflib.get_close_matches(str(problem["loc"][-1]), allowed, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        field = ".".join(str(part) for part in problem["loc"])
        return f"profile {profile}: {field}={problem['input']!r}: unknown key; {hint}allowed: {', '.join(allowed)}"
    return f"profile {profile}: {explain_validation(error)}"


def _fields_at(loc: tuple[int | str, ...]) -> list[str]:
    """Names of the fields of the model at a location of the settings tree."""
    model: Any = Settings
    for part in loc:
        if part in SOURCES and model is Imagery:
            model = SOURCES[str(part)]
        elif isinstance(model, type) and issubclass(model, BaseModel) and part in model.model_fields:
            annotation = model.model_fields[str(part)].annotation
            model = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else model
            model = TaskData if part == "tasks" else model
    return list(model.model_fields)
