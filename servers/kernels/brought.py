"""Files beside these modules that other programs read: they are where the modules are, or in the cache where the modules are in an archive."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

from . import images, packages


@cache
def brought(name: str) -> Path:
    """Return the path of a file of this folder. In an archive (mk9p.pyz) other programs cannot read it, so it is copied into the cache."""
    place = files(__package__) / name
    if isinstance(place, Path):
        return place
    data = place.read_bytes()
    path = packages.cache() / f"{hashlib.sha256(data).hexdigest()[:16]}-{name}"
    if not path.exists():
        images.write_whole(path, data)
    return path
