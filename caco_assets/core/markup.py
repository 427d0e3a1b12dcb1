"""Text that comes from outside (names, data, messages), made harmless where it becomes part of HTML or Markdown."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from jinja2 import Environment

_TAG = re.compile(r"<(?=[A-Za-z/!?])")
"""`<` where it begins a tag, a comment or an autolink; `a < b` is text in HTML and Markdown alike."""


def escape_tags(value: Any) -> Any:
    """`value` with every tag in its strings shown as text; lists and mappings are copied, `Markup` is kept."""
    if isinstance(value, str):
        return value if isinstance(value, Markup) else _TAG.sub("&lt;", value)
    if isinstance(value, list | tuple):
        return type(value)(escape_tags(item) for item in value)
    if isinstance(value, dict):
        return {key: escape_tags(item) for key, item in value.items()}
    return value


def escape_markdown(value: Any) -> Any:
    """`value` for a line of Markdown or a cell of a table: a string gets no tag, link, image, cell or line of its own.

    Text that means nothing of this is unchanged. `Markup` and other types are kept.
    """
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    text = " ".join(escape_tags(value).splitlines())
    # as entities: a backslash may follow another one
    return re.sub(r"\](?=[(\[:])", "&#93;", text.replace("|", "&#124;"))


def markdown_environment(**options: Any) -> Environment:
    """Jinja for Markdown templates: what a template inserts is escaped, unless it is `Markup`."""
    from jinja2 import Environment, StrictUndefined

    # autoescape is for HTML
    return Environment(undefined=StrictUndefined, autoescape=False, finalize=escape_markdown, **options)  # noqa: S701
