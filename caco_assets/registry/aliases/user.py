"""Who does it: the name that goes into tags, and the one that the policy knows."""

from __future__ import annotations

import os
import pwd


def who() -> str:
    """Name of the user whose process this is: what the operating system says, not what the environment claims."""
    number = os.getuid()
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        # a container may run as a number that nobody has named
        return f"uid {number}"
