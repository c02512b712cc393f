"""`mk9p edit PATH`: change a file of the tree with $VISUAL, else $EDITOR, else vi.

What was changed is written back, as `mk9p write` does, if nobody else has changed the file meanwhile. Whatever goes wrong then, also in the editor,
the text is kept in a file of this machine, whose name is said.
"""

import errno
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mk9p.client import Client
from mk9p.clients.common import in_namespace, say
from mk9p.clients.links import resolved
from mk9p.errors import NineError
from mk9p.usage import parsed


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p edit`."""
    chosen = parsed(arguments)
    return in_namespace(lambda ns: edit(ns, chosen.path))


async def edit(ns: Client, path: str) -> int:
    """Let the user edit a file; return the editor's exit status, and write nothing if that is not 0. Raises EBUSY for one that somebody else has
    changed."""
    try:
        real = await resolved(ns, path)
        before = await ns.read_bytes(real)
    except NineError as error:
        raise _about(path, error) from None
    folder = Path(tempfile.mkdtemp(prefix="mk9p-"))
    copy = folder / (real.rstrip("/").rpartition("/")[2] or "file")
    copy.write_bytes(before)
    status = await ns.connection.aside(_edited, copy)
    after = copy.read_bytes()
    try:
        if status and after != before:
            say(f"{path}: the editor ended with {status}; your text is in {copy}")
            return status
        if after != before:
            if await ns.read_bytes(real) != before:
                raise NineError(errno.EBUSY, "it has changed meanwhile")
            await ns.write(real, after)
    except NineError as error:
        raise _about(path, NineError(error.errno, f"{error.ename}; your text is in {copy}")) from None
    shutil.rmtree(folder)
    return status


def _edited(copy: Path) -> int:
    """Run the editor; return its exit status. Raises ENOENT if there is none."""
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        return subprocess.run([*shlex.split(editor), str(copy)]).returncode
    except (FileNotFoundError, PermissionError, IndexError):
        shutil.rmtree(copy.parent)
        raise NineError(errno.ENOENT, f"no editor {editor!r}: set $EDITOR") from None


def _about(path: str, error: NineError) -> NineError:
    error.filename = path
    return error
