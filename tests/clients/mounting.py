"""Helpers of the tests of mounting: a served tree, a mount of it by FUSE, and a shell in it."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from mk9p.clients import mount
from mk9p.clients.mounts import mounted_at
from mk9p.testing import SOON, hear

TREE = str(Path(__file__).with_name("mount_tree.py"))
PATIENCE = SOON


def need_fuse() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if not os.path.exists("/dev/fuse"):
        pytest.skip("needs /dev/fuse")
    pytest.importorskip("pyfuse3")


def blocked(pid: int) -> bool:
    """Tell whether a process waits for an answer of a FUSE file system."""
    return "request_wait_answer" in Path(f"/proc/{pid}/wchan").read_text()


def mk9p(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "mk9p", *words], capture_output=True, text=True, timeout=PATIENCE)


@attrs.define(eq=False)
class Place:
    """A directory of its own for everybody: a socket, a mount point, room for files."""

    top: Path
    address: str = ""
    server: subprocess.Popen[str] | None = None
    cache: str = "none"

    @property
    def dir(self) -> Path:
        return self.top / "mnt"

    def serve(self, program: str = TREE) -> None:
        """Start the server, and return when it can be dialled."""
        self.address = f"unix!{self.top}/s"
        self._start(sys.executable, program, self.address)

    def export(self) -> None:
        """Serve the directory `export` of this place."""
        self._start(sys.executable, "-m", "mk9p", "serve", "-l", self.address, f"fs:{self.top}/export")

    def _start(self, *command: str) -> None:
        self.server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        hear(self.server, "listening")

    def again(self) -> None:
        """Let that server be killed, and come back."""
        self.kill()
        self.export()

    def kill(self) -> None:
        assert self.server is not None
        self.server.kill()
        self.server.communicate()
        self.server = None

    def mount(self, *flags: str) -> None:
        self.cache = flags[flags.index("--cache") + 1] if "--cache" in flags else "none"
        done = mk9p("mount", "--fuse", *flags, self.address, str(self.dir))
        assert (done.returncode, done.stderr) == (0, f"mk9p mount: note: {mount.LOCKS}\n")

    def sh(self, script: str, *, user: int | None = None, inside: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a script in the mount, or else in the directory above it, `$T`."""
        who = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"] if user is not None else []
        return subprocess.run(
            [*who, "bash", "-c", script],
            cwd=self.dir if inside else self.top,
            env={**os.environ, "T": str(self.top), "LC_ALL": "C"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    def out(self, script: str, *, user: int | None = None) -> str:
        done = self.sh(script, user=user)
        assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr}"
        return done.stdout

    def error(self, script: str, *, user: int | None = None, inside: bool = True) -> str:
        done = self.sh(script, user=user, inside=inside)
        assert done.returncode != 0
        return done.stderr

    @contextmanager
    def started(self, *command: str) -> Iterator[subprocess.Popen[str]]:
        """Run a command in the mount while the block runs."""
        child = subprocess.Popen(command, cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            yield child
        finally:
            child.kill()
            child.communicate(timeout=SOON)  # no `with`: that would wait for ever for one that cannot be killed

    def processes(self) -> list[int]:
        """Return the processes that serve the mount."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"mount" in words and str(self.dir).encode() in words:
                found.append(int(folder.name))
        return found


@contextmanager
def exported(*flags: str) -> Iterator[Place]:
    """Give a place where a directory of the host, `export`, is served by mk9p and mounted: all users may come, and make files in it."""
    with place() as made:
        export = made.top / "export"
        export.mkdir()
        export.chmod(0o777)
        made.address = f"unix!{made.top}/s"
        made.export()
        made.mount("--aname", "fs/export", *flags)
        yield made
        mount.umount(str(made.dir), lazy=True)


@contextmanager
def place() -> Iterator[Place]:
    """Give a place, and leave nothing of it; skip where nothing can be mounted by FUSE."""
    need_fuse()
    top = Path(tempfile.mkdtemp(prefix="mk9p-mount-"))
    top.chmod(0o755)  # pytest's own is closed to other users
    made = Place(top)
    made.dir.mkdir()
    try:
        yield made
    finally:
        if mounted_at(str(made.dir)):
            mount.umount(str(made.dir), lazy=True)
        if made.server is not None:
            made.kill()
        shutil.rmtree(top)
