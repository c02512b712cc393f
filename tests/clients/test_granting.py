"""`mk9p grant`, `narrow`, `revoke`, and every client that shows a capability: commands, the blocking client, fsspec, a mount by FUSE."""

import errno
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import mk9p.sync
from mk9p.clients.mount import umount
from mk9p.errors import NineError
from mk9p.testing import SOON, child, until_true
from tests.clients.mounting import need_fuse

ME = [sys.executable, "-m", "mk9p"]


@attrs.frozen
class Lab:
    """A composer of its own, with a kernel k1 that exports a directory."""

    folder: Path
    address: str
    env: dict[str, str]

    @property
    def shared(self) -> Path:
        return self.folder / "data"

    def run(self, *words: str, stdin: str = "", **env: str) -> tuple[int, str, str]:
        done = subprocess.run(
            [*ME, *words],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=SOON,
            env=self.env | env,
            cwd=self.folder,
        )
        return done.returncode, done.stdout, done.stderr

    def ok(self, *words: str, **more: str) -> str:
        status, out, err = self.run(*words, **more)
        assert (status, err) == (0, ""), err
        return out

    def grant(self, *words: str, name: str = "cap") -> str:
        """Grant a capability into a new file, and return the file."""
        path = self.folder / name
        assert self.ok("grant", *words, "-o", str(path)) == ""
        assert path.stat().st_mode & 0o777 == 0o600
        return str(path)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    folder, data = tmp_path, tmp_path / "data"
    data.mkdir()
    (data / "f").write_text("text\n")
    (data / "deep").mkdir()
    (data / "deep/g").write_text("deep\n")
    address = f"unix!{folder}/ns"
    env = {**os.environ, "XDG_STATE_HOME": str(folder / "state"), "MK9P": address}
    env.pop("MK9P_CAP", None)
    script = folder / "script"
    script.write_text(f"mount unix!{folder}/k1 /k/k1\n")
    with (
        child([*ME, "serve", "-l", f"unix!{folder}/k1", f"fs:{data}"], "listening", env=env),
        child([*ME, "compose", "-l", address, str(script)], "listening", env=env),
    ):
        yield Lab(folder, address, env)


def test_a_capability_from_its_grant_to_its_end(lab: Lab) -> None:
    cap = lab.grant("/k/k1/fs/data", "r", "--for", "1h")
    assert lab.ok("--cap", cap, "ls") == "deep/\nf\n"
    assert lab.ok("--cap", cap, "cat", "f") == lab.ok("cat", "f", MK9P_CAP=cap) == "text\n"
    assert lab.run("--cap", cap, "write", "f", "no")[0] == 1
    assert lab.run("--cap", cap, "cat", "../../auth/grants")[0] == 1
    assert (lab.shared / "f").read_text() == "text\n"
    line = lab.ok("cat", "auth/grants").split()
    assert line[1:6] == ["/k/k1/fs/data", "r", line[3], "-", "-"]
    assert line[-1] == line[3], "it was used by who granted it"
    lab.ok("revoke", line[0])
    status, out, err = lab.run("--cap", cap, "cat", "f")
    assert (status, out) == (1, "")
    assert err == f"mk9p cat: capability refused: {line[0]} is revoked\n"
    assert lab.ok("cat", "auth/grants") == ""


def test_narrowing_needs_no_server_and_shows_what_it_gives(lab: Lab) -> None:
    cap = lab.grant("/k/k1/fs", "rw")
    less = str(lab.folder / "less")
    nowhere = {"MK9P": "unix!/nonexistent"}
    assert lab.ok("narrow", "--cap", cap, "/k/k1/fs/data/deep", "r", "--for", "1h", "-o", less, **nowhere) == ""
    shown = dict(line.split(maxsplit=1) for line in lab.ok("narrow", "--cap", less, **nowhere).splitlines())
    assert (shown["path"], shown["ops"]) == ("/k/k1/fs/data/deep", "r")
    assert abs(int(shown["until"]) - time.time() - 3600) < SOON
    assert lab.ok("--cap", less, "cat", "g") == "deep\n"
    assert lab.run("--cap", less, "cat", "../f")[0] == 1
    text = Path(less).read_text()
    assert lab.ok("narrow", "--cap", "-", stdin=text) == lab.ok("narrow", MK9P_CAP=text.strip())
    status, _, err = lab.run("narrow", "--cap", less, "/k/k1/fs/data")
    assert status == 0, "an intersection: it stays where it was"
    status, _, err = lab.run("narrow", "--cap", less, "/k/k2")
    assert (status, err) == (
        1,
        "mk9p narrow: capability refused: it gives nothing: /k/k2 is not in /k/k1/fs/data/deep\n",
    )
    lab.ok("revoke", "--cap", less)
    assert lab.run("--cap", less, "cat", "g")[0] == 1
    assert lab.ok("--cap", cap, "cat", "data/deep/g") == "deep\n"


def test_a_file_that_others_can_read_is_refused_by_every_client(lab: Lab) -> None:
    cap = lab.grant("/k/k1/fs/data", "r")
    os.chmod(cap, 0o644)
    said = f"{cap}: others can read it: chmod 600, and take it for known\n"
    assert lab.run("--cap", cap, "ls") == (1, "", f"mk9p ls: {said}")
    assert lab.run("ls", MK9P_CAP=cap) == (1, "", f"mk9p ls: {said}")
    assert lab.run("narrow", "--cap", cap, "/", "r") == (1, "", f"mk9p narrow: {said}")
    (lab.folder / "mnt").mkdir()
    for option in (("--cap", cap), ("-o", f"ro,cap={cap}")):
        assert lab.run("mount", *option, lab.address, "mnt") == (1, "", f"mk9p mount: {said}")
    with pytest.raises(NineError, match="others can read it"):
        mk9p.sync.connect(lab.address, cap=cap)


def test_a_text_among_the_arguments_is_taken_for_a_name(lab: Lab) -> None:
    text = Path(lab.grant("/", "r")).read_text().strip()
    status, _, err = lab.run("--cap", text, "ls")
    assert status == 1
    assert "No such file" in err or "File name too long" in err


def test_another_file_is_not_overwritten(lab: Lab) -> None:
    cap = lab.grant("/", "r")
    before = Path(cap).read_bytes()
    assert lab.run("grant", "/", "r", "-o", cap) == (1, "", f"mk9p grant: {cap}: File exists\n")
    assert Path(cap).read_bytes() == before


@pytest.mark.parametrize(
    "words", ["grant /", "grant k r", "grant / x", "grant / rr", "grant / r --for 0", "grant / r --for 1y", "revoke"]
)
def test_wrong_use_is_told(tmp_path: Path, words: str) -> None:
    assert Lab(tmp_path, "", {**os.environ}).run(*words.split())[0] == 2


def test_the_blocking_client_and_fsspec_show_it(lab: Lab) -> None:
    from mk9p.clients.fsspec import NineFileSystem

    cap = lab.grant("/k/k1/fs/data", "r")
    with mk9p.sync.connect(lab.address, cap=cap) as ns:
        assert ns.read("f") == "text\n"
        with pytest.raises(OSError, match=r"(?i)read-only|denied"):
            ns.write("f", "no")
    fs = NineFileSystem(lab.address, cap=cap, skip_instance_cache=True)
    assert fs.cat_file("/deep/g") == b"deep\n"
    with pytest.raises(OSError, match=r"(?i)read-only|denied"):
        fs.pipe_file("/f", b"no")
    fs.close()
    lab.ok("revoke", "--cap", cap)
    with pytest.raises(NineError, match="is revoked"):
        mk9p.sync.connect(lab.address, cap=cap)


def test_a_mount_by_fuse_shows_it_and_tells_nobody(lab: Lab) -> None:
    need_fuse()
    cap = lab.grant("/k/k1/fs/data", "rw")
    text = Path(cap).read_text().strip()
    place = lab.folder / "mnt"
    place.mkdir()
    status, _, err = lab.run("mount", "--fuse", "-o", f"cap={cap}", lab.address, "mnt")
    assert status == 0, err
    try:
        assert (place / "f").read_text() == "text\n"
        (place / "f").write_text("new\n")
        assert (lab.shared / "f").read_text() == "new\n"
        with pytest.raises(OSError, match=r"(?i)denied|read-only"):
            (place / "deep/g").unlink()
        assert text[:60] not in Path("/proc/self/mountinfo").read_text()
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            assert text[:60] not in _content(process)
        lab.ok("revoke", "--cap", cap)
        until_true(lambda: _refused(place / "deep" / "g"))
    finally:
        umount(str(place))
    status, _, err = lab.run("mount", "--fuse", "-o", f"cap={cap}", lab.address, "mnt")
    assert status == 1
    assert "is revoked" in err


def _content(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:  # the process has ended
        return ""


def _refused(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError as error:
        return error.errno in (errno.EACCES, errno.EIO)
    return False
