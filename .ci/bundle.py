"""bundle.py DIR: put mk9p and what it needs into a folder, from which any Python 3.11 or newer runs it: `python3 DIR`.

It takes the packages from the environment that runs it, where `make setup` put them with their hashes checked: so this needs no network. They are
the dependencies of mk9p and of its extras that are pure Python; what is compiled (pyfuse3) belongs to one version of Python and one kind of machine.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from zipfile import ZipFile

from packaging.requirements import Requirement

ROOT: Final = Path(__file__).parent.parent
EXTRAS: Final = ("net", "web")
COMPILED: Final = {".so", ".pyd"}
LEFT_OUT: Final = re.compile(r"(^|/)(_?tests|__pycache__)/|(^|/)(RECORD|INSTALLER|REQUESTED|direct_url\.json)$|\.pyi$")
MAIN: Final = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("mk9p: this is Python %d.%d, and mk9p needs 3.11 or newer: python3.11 %s" % (sys.version_info[:2] + (sys.path[0],)))
from mk9p.itself import BUNDLE

BUNDLE.append(sys.path[0])
from mk9p.__main__ import main

sys.exit(main())
"""


def needed(name: str, extras: tuple[str, ...] = (), known: set[str] | None = None) -> Iterator[str]:
    """Yield the names of the packages that one needs, without itself."""
    known = {name} if known is None else known
    for text in distribution(name).requires or ():
        each = Requirement(text)
        wanted = each.marker is None or any(each.marker.evaluate({"extra": extra}) for extra in ("", *extras))
        if wanted and each.name not in known:
            known.add(each.name)
            yield each.name
            yield from needed(each.name, known=known)


def copy(name: str, folder: Path) -> None:
    """Copy the files of an installed package. Raises SystemExit for a package that is not pure Python."""
    for file in distribution(name).files or ():
        path = str(file)
        if path.startswith("..") or LEFT_OUT.search(path):
            continue
        if file.suffix in COMPILED:
            sys.exit(f"mk9p: {name} has {path}, which is compiled: it cannot go into a bundle")
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file.locate(), folder / path)


def main(folder: Path) -> None:
    """Fill a folder that does not exist yet."""
    with TemporaryDirectory() as there:
        build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", there]
        done = subprocess.run(build, cwd=ROOT, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"mk9p: the wheel cannot be built: {done.stderr}")
        (wheel,) = Path(there).glob("*.whl")
        with ZipFile(wheel) as archive:
            archive.extractall(folder)
    for record in folder.glob("*.dist-info/RECORD"):
        record.unlink()
    try:
        for name in sorted(needed("mk9p", EXTRAS)):
            copy(name, folder)
    except PackageNotFoundError as error:
        sys.exit(f"mk9p: {error}: make setup")
    (folder / "__main__.py").write_text(MAIN)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
