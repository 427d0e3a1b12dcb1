"""The one exception that stands for bad input: its text is one line that names the thing, the value and the way out."""


class UserError(Exception):
    """Something the user can put right. The command line prints its text alone and exits with 2; nothing finished is lost."""
