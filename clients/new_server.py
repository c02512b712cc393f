"""`mk9p new-server NAME [DIR]`: make the package of a new resource server, as a start.

It copies `template/` beside this module, file by file, with `@name@` for the name, also in paths; `.in` hides the files from tools that work on
this tree. `examples/counter` is such a package, finished.
"""

import errno
import keyword
import re
import shutil
from collections.abc import Iterator, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from mk9p.errors import NineError
from mk9p.loading import available
from mk9p.usage import parsed


def made(name: str) -> dict[str, str]:
    """Return the files of a new server's package: their texts by their paths."""
    return {
        path.replace("@name@", name): file.read_text().replace("@name@", name)
        for path, file in _template(files("mk9p.clients") / "template")
    }


def _template(folder: Traversable, path: str = "") -> Iterator[tuple[str, Traversable]]:
    for file in folder.iterdir():
        if file.is_dir():
            yield from _template(file, f"{path}{file.name}/")
        elif file.name.endswith(".in"):
            yield path + file.name.removesuffix(".in"), file


def check(name: str) -> None:
    """Raise EINVAL for a text that cannot be a server's name, EEXIST for the name of an installed server.

    It becomes part of a module's name, of a package's, and of a path.
    """
    if not re.fullmatch(r"[a-z]([a-z0-9_]{0,30}[a-z0-9])?", name) or keyword.iskeyword(name):
        want = "want a Python identifier of at most 32 small letters, digits and, between them, _: as gpio or my_disk"
        raise NineError(errno.EINVAL, f"{name!r} is no name for a server: {want}")
    if name in available():
        raise NineError(errno.EEXIST, f"there is a resource server {name} already (`mk9p help {name}`)")


def make(name: str, folder: Path) -> None:
    """Make the package in a new folder. Raises as `check` does, and EEXIST for an existing folder; after any error nothing was made."""
    check(name)
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        raise NineError(errno.EEXIST, f"{folder} exists already, and is not changed") from None
    try:
        for path, text in made(name).items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_text(text)
    except BaseException:
        shutil.rmtree(folder)
        raise


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p new-server`."""
    chosen = parsed(arguments)
    name, folder = chosen.server, chosen.folder or f"mk9p-{chosen.server}"
    make(name, Path(folder))
    print(
        f"{folder} is ready. Its README.md says how to go on:\n\n    cd {folder}\n    pip install -e '.[test]'\n    pytest"
    )
    return 0
