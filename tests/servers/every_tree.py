"""Every resource server that is installed, made so that it can be tried here: on this very kernel, where only what is harmless is done."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mk9p.loading import available
from mk9p.tree import Dir
from tests.servers import sensing

# Not to be opened: terminals that are somebody's, what is never the same, and what waits for a process of this machine to end.
BUT = {"dev": ("cons", "consctl", "kmsg", "random"), "proc": ("*/mem", "*/wait"), "host": (), "kernels": ("*/console",)}
SERVERS = sorted(available())


def make(name: str, folder: Path) -> Callable[[], Any]:
    """Return the function that makes a server's tree; those that want a folder get one below `folder`."""
    function: Callable[..., Any] = available()[name].load()
    numbers = itertools.count()
    if name == "fs":
        below = folder / "given away"
        (below / "some/more").mkdir(parents=True)
        (below / "some/text").write_text("text\n" * 1000)
        (below / "empty").touch()
        return lambda: function(str(below))
    if name in ("sensors", "power"):  # of which most machines that tests run on have nothing
        getattr(sensing, name)(folder)
        return lambda: function(root=str(folder))
    if name == "kernels":
        return lambda: function(str(folder / f"run{next(numbers)}"))
    if name == "tf":
        return lambda: function(lambda who: Dir({"k": Dir()}))
    return function
