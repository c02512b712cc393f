"""Where this user's settings are (file-hierarchy(7)). Every command asks that at its start, so nothing is imported."""

import os


def config() -> str:
    """Return the directory of this user's settings."""
    home = os.environ.get("XDG_CONFIG_HOME")
    return os.path.join(home if home and os.path.isabs(home) else os.path.expanduser("~/.config"), "mk9p")


def context_in_use() -> bool:
    """Tell whether a context may be in use (mk9p/contexts.py)."""
    return bool(os.environ.get("MK9P_CONTEXT")) or os.path.lexists(os.path.join(config(), "context"))
