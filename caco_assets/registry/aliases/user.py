"""The current user: the name in tags and records, and the one that the promotion policy knows."""

from __future__ import annotations

import os
import pwd


def current_user() -> str:
    """Name of the user that runs this process, from the operating system: environment variables can be set by anyone."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        # a container may run as a user id without a name
        return f"uid {number}"
