"""py9p, and a Python that runs it: 1.0.8 itself under Python 2.7, or its fork for Python 3 in p9fs.

py9p is three things: on PyPI `py9p` 1.0.8 of 2013, for Python 2 alone; `p9fs`, which ships a fork of it for Python 3; and `python-9p`, a newcomer.
All three are imported as `py9p`, so that neither of the first two can be in the environment of these tests. They are fetched once, into the cache.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Final

import attrs

from mk9p.testing import SOON

PY9P: Final = "py9p==1.0.8"
P9FS: Final = "p9fs==0.0.4"


class Missing(Exception):
    """Say in a line why there is no py9p."""


@attrs.frozen
class Python:
    """An interpreter, and the environment in which it can import a py9p."""

    name: str
    executable: str
    environment: dict[str, str]

    def popen(self, script: Path, *arguments: str) -> "subprocess.Popen[bytes]":
        """Start a script; its standard input and output are pipes."""
        words = [self.executable, str(script), *arguments]
        pipe = subprocess.PIPE
        return subprocess.Popen(words, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe)


def find(name: str) -> Python:
    """Return a Python with `py9p` or `p9fs`. Raises Missing."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    plain["PYTHONDONTWRITEBYTECODE"] = "1"
    if name == "py9p":
        python = next(_pythons_2(), None)
        if python is None:
            raise Missing("no Python 2.7: py9p 1.0.8 needs one on PATH or in pyenv")
        return Python(name, python, {**plain, "PYTHONPATH": str(_once("py9p-1.0.8", _unpack))})
    home = _once("p9fs-0.0.4", _environment)
    return Python(name, str(home / "bin" / "python"), plain)


def _pythons_2() -> Iterator[str]:
    """Give the Pythons 2.7 that run: a `python2.7` on PATH may be pyenv's shim, which only says that no such version is chosen."""
    candidates = [Path(found) for found in [shutil.which("python2.7"), shutil.which("python2")] if found]
    root = os.environ.get("PYENV_ROOT") or _said([shutil.which("pyenv") or "pyenv", "root"])
    if root:
        candidates += sorted(Path(root).glob("versions/2.7*/bin/python2.7"), reverse=True)
    for candidate in candidates:
        if _said([str(candidate), "-c", "import sys; sys.stdout.write(sys.version[:3])"]) == "2.7":
            yield str(candidate)


def _said(command: Sequence[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def _once(name: str, make: Callable[[Path], None]) -> Path:
    """Return a folder of the cache, which is made if it is not there; half of one is never seen."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mk9p"
    home = cache / name
    if (home / "complete").exists():
        return home
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be at it
        if (home / "complete").exists():
            return home
        shutil.rmtree(home, ignore_errors=True)
        try:
            make(home)
        except subprocess.SubprocessError as error:
            shutil.rmtree(home, ignore_errors=True)
            raise Missing(f"{name} could not be fetched: {_why(error)}") from None
        (home / "complete").touch()
    return home


def _why(error: subprocess.SubprocessError) -> str:
    said = getattr(error, "stderr", None) or b""
    lines = said.decode(errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.startswith("ERROR")), str(error))


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=300)


def _unpack(home: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        # --no-binary: its wheel, if ever there were one, could not be unpacked as the source can
        _run(sys.executable, "-m", "pip", "download", "-q", "--no-binary", ":all:", "--no-deps", "-d", folder, PY9P)
        (archive,) = Path(folder).iterdir()
        (home / "py9p").mkdir(parents=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                if member.isfile() and PurePath(member.name).match("py9p-*/py9p/*.py"):
                    content = tar.extractfile(member)
                    assert content is not None
                    (home / "py9p" / PurePath(member.name).name).write_bytes(content.read())


def _environment(home: Path) -> None:
    # Not --copies: the interpreter is wanted as it is. An environment is bound to its place, so it is made there.
    _run(sys.executable, "-m", "venv", str(home))
    _run(str(home / "bin" / "python"), "-m", "pip", "install", "-q", P9FS)
