"""The one exception that stands for bad input, and other errors put into one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """Something the user can put right. The command line prints its text alone and exits with 2; nothing finished is lost."""


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The text of an error on one line, at most `limit` characters: it names the thing, the value and the way out."""
    return " ".join(str(error).split())[:limit]


def explain_validation(error: ValidationError) -> str:
    """The first problem that pydantic has found: `field=value: what is allowed`."""
    problem = error.errors()[0]
    field, message = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
    shown = isinstance(problem["input"], str | int | float | bool | None)
    return f"{field}={problem['input']!r}: {message}" if field and shown else f"{field}: {message}" if field else message
