"""The exception for bad input, and one-line texts of other errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class UserError(Exception):
    """An error that the user can fix. The command line prints only its text and exits with 2; finished work is kept."""


def one_line(error: BaseException | str, limit: int = 300) -> str:
    """The text of an error on one line, cut to `limit` characters."""
    return " ".join(str(error).split())[:limit]


def explain_validation(error: ValidationError) -> str:
    """The first problem that pydantic found: `field=value: what is allowed`."""
    from pydantic import BaseModel

    problem = error.errors()[0]
    field, message = ".".join(str(part) for part in problem["loc"]), problem["msg"].removeprefix("Value error, ")
    # a whole section would be longer than the message
    shown = not isinstance(problem["input"], dict | BaseModel)
    return f"{field}={problem['input']!r}: {message}" if field and shown else f"{field}: {message}" if field else message
