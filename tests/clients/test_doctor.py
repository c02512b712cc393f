"""`mk9p doctor`: each hazard of a tree that has them all is found, a sound tree has none, and looking changes nothing."""

import errno
import os
import stat as st
import subprocess
import sys
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import trio

from mk9p.auth import Principal
from mk9p.clients import doctor as command
from mk9p.clients.doctor.examine import SKIPPED, Bounds, Examination, tell
from mk9p.clients.doctor.judge import Content, Finding, of_content, of_name
from mk9p.clients.doctor.options import address_of, mount_line, of_options
from mk9p.clients.doctor.sources import Local, Served
from mk9p.clients.mounts import Mounted
from mk9p.errors import NineError
from mk9p.testing import in_thread, mounted, serving_at
from mk9p.tree import Block, Change, Ctl, Dir, Handle, Log, Node, Open, Stat, Stream, Text
from mk9p.wire import QTSYMLINK, Qid
from tests.clients.mounting import place


class Odd(Node):
    """A file that says of itself what it is told to."""

    def __init__(self, content: bytes = b"", *, walks: Any = None, **stat: Any) -> None:
        self.content, self.walks, self.said = content, walks, {"mode": st.S_IFREG | 0o644, **stat}
        self.changes = 0

    @property
    def path(self) -> int | None:  # type: ignore[override]
        return next(self.walks) if self.walks is not None else None

    def stat(self) -> Stat:
        said = {key: next(value) if isinstance(value, count) else value for key, value in self.said.items()}
        return Stat(**said)

    def open(self, how: Open) -> Handle:
        return OddHandle(self)

    def change(self, change: Change, who: Principal) -> None:
        raise NineError(errno.EPERM)


class OddHandle(Handle):
    def __init__(self, file: Odd) -> None:
        self.file = file

    def read(self, offset: int, count: int) -> bytes:
        return self.file.content[offset : offset + count]


class Broken(Odd):
    """Its status is told to the walk, and then no more."""

    asked = 0

    def stat(self) -> Stat:
        self.asked += 1
        if self.asked % 2:
            return super().stat()
        raise NineError(errno.EIO)


class Stuck(Odd):
    async def stat(self) -> Stat:  # type: ignore[override]
        await trio.sleep_forever()
        raise AssertionError


class Link(Odd):
    qtype = QTSYMLINK

    def readlink(self) -> str:
        raise NineError(errno.EIO)


class Ghosts(Dir):
    """A directory that lists what cannot be walked to."""

    def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
        found = super().entries(who)
        assert not hasattr(found, "__await__")
        return [*found, ("ghost", Text("")), ("a/b", Text("")), ("text", Text(""))]


def same(number: int) -> Any:
    return iter(lambda: number, None)


def sick() -> Dir:
    return Dir(
        {
            "beyond": Odd(b"12345", length=10),
            "cut": Odd(b"1234567890", length=5),
            "big": Odd(b"x" * 5000, length=1 << 30),
            "flicker": Odd(walks=count(1000)),
            "changing": Odd(version=count(1)),
            "cached": Odd(b"made up", version=7),
            "device": Odd(mode=st.S_IFCHR | 0o666, rdev=0x103),
            "fifo": Odd(mode=st.S_IFIFO | 0o666),
            "none": Odd(mode=0o644),
            "not-a-dir": Odd(mode=st.S_IFDIR | 0o755),
            "removed": Odd(nlink=0),
            "broken": Broken(),
            "link": Link(mode=st.S_IFLNK | 0o777),
            "closed": Dir({"a": Text("")}, mode=0o444),
            "twin1": Odd(b"one", walks=same(77)),
            "ghosts": Ghosts({"text": Text("")}),
            # in one directory with the first it would be the one that is found second at times: trio's tasks take turns as they like
            "deep": Dir({"deeper": Dir({"beyond": Odd(b"", length=1)}), "twin2": Odd(b"two", walks=same(77))}),
        }
    )


async def examined(tree: Node, version: str = "9P2000.L", **options: Any) -> Examination:
    async with mounted(tree, version=version) as client:
        done = Examination(Served(client), **options)
        await done.run()
        return done


def kinds(done: Examination) -> set[tuple[str, str]]:
    return {(finding.path, finding.kind) for finding in done.findings}


async def test_each_hazard_is_found() -> None:
    done = await examined(sick())
    assert kinds(done) == {
        ("/beyond", "length"),
        ("/cut", "length"),
        ("/big", "length"),
        ("/flicker", "qid"),
        ("/changing", "version"),
        ("/cached", "version"),
        ("/device", "special"),
        ("/fifo", "special"),
        ("/none", "mode"),
        ("/not-a-dir", "qid"),
        ("/removed", "nlink"),
        ("/broken", "stat"),
        ("/link", "link"),
        ("/closed", "mode"),
        ("/deep/twin2", "qid"),
        ("/ghosts/ghost", "walk"),
        ("/ghosts", "name"),
        ("/not-a-dir", "list"),
        ("/deep/deeper/beyond", "length"),
    }, done.findings
    text = "\n".join(map(str, done.findings))
    assert "10 bytes by stat, reading ends after 5" in text
    assert "also that of /twin1" in text
    assert "Linux accepts no name 'a/b'" in text
    assert "'text' is listed twice" in text


@pytest.mark.parametrize("version", ["9P2000", "9P2000.u"])
async def test_the_other_dialects(version: str) -> None:
    found = kinds(await examined(Dir({"beyond": Odd(b"12345", length=10), "ctl": Ctl({})}), version, write=True))
    assert found == {("/beyond", "length")}


def sound(opened: list[str]) -> Dir:
    def touched(name: str) -> Any:
        async def receive() -> bytes:
            opened.append(name)
            await trio.sleep_forever()
            return b""

        def send(data: bytes) -> int:
            opened.append(name)
            return len(data)

        return Stream(receive, send)

    stored = Odd(b"12345", length=5, version=9, mtime=7)
    return Dir(
        {
            "text": Text("made up\n"),
            "ctl": Ctl({"add": lambda n: opened.append(n)}),
            "log": Log(),
            "disk": Block(lambda n, at: bytes(max(0, min(n, (3 << 20) - at))), size=lambda: 3 << 20),
            "stored": stored,
            "bound": Dir({"text": Text("same\n")}),
            **{name: touched(name) for name in sorted(SKIPPED)},
            "conv": Dir({"data": touched("data")}),
        }
    )


async def test_a_sound_tree_has_no_findings_and_is_left_as_it_was() -> None:
    opened: list[str] = []
    done = await examined(sound(opened), write=True, bounds=Bounds(patience=0.2))
    assert done.findings == []
    assert opened == []
    assert done.waiting == 1  # the log, whose first line has not come
    assert (done.files, done.directories, done.cut) == (16, 3, False)


async def test_what_means_something_is_left_alone_under_the_name_that_it_has_in_all_too() -> None:
    begun: list[str] = []

    class Clone(Odd):
        def open(self, how: Open) -> Handle:
            begun.append("a conversation")
            return super().open(how)

    clone = Clone(b"0\n", walks=same(5))
    tree = Dir({"all": Dir({"k.0.clone": clone, "k1.events": Log()}), "k": Dir({"clone": clone})})
    done = await examined(tree, write=True)
    assert (done.findings, begun, done.waiting) == ([], [], 0)


async def test_a_directory_that_has_gone_before_it_is_listed_is_no_finding() -> None:
    class Ended(Dir):
        def entries(self, who: Principal) -> Iterable[tuple[str, Node]]:
            processes.pop("1", None)
            raise NineError(errno.ENOENT)

    processes: dict[str, Node] = {"1": Ended({}), "2": Dir({"status": Text("")})}
    done = await examined(Dir({"proc": Dir(processes)}))
    assert (done.findings, done.files) == ([], 4)


async def test_one_file_at_two_places_is_no_twin() -> None:
    text = Odd(b"same", walks=same(5))
    live = Odd(b"", walks=same(6), length=count(1))
    assert kinds(await examined(Dir({"a": text, "b": text, "c": live, "d": live}))) == set()

    class Flicker(Odd):
        def open(self, how: Open) -> Handle:
            self.changes += 1
            now = b"1" if self.changes == 3 else b"0"  # as `proc/1/fd`, just when its twin is looked at
            return OddHandle(Odd(now))

    flicker = Flicker(walks=same(7))
    assert kinds(await examined(Dir({"a": flicker, "below": Dir({"b": flicker})}))) == set()
    assert flicker.changes > 3


async def test_truncation_is_tried_only_when_asked_for_and_never_where_something_is_lost() -> None:
    tree = Dir(
        {"refuses": Odd(), "full": Odd(b"x", length=1), "ctl": Ctl({}), "read-only": Odd(mode=st.S_IFREG | 0o444)}
    )
    assert kinds(await examined(tree)) == set()
    assert kinds(await examined(tree, write=True)) == {("/refuses", "truncate")}
    done = await examined(tree, write=True, skip=SKIPPED | {"refuses"})
    assert kinds(done) == set()


async def test_what_never_answers_is_left_after_a_while() -> None:
    done = await examined(Dir({"stuck": Stuck(), "text": Text("")}), bounds=Bounds(patience=0.1))
    assert kinds(done) == {("/stuck", "slow")}
    assert done.files == 2


async def test_bounds() -> None:
    tree = Dir({f"{n}": Dir({"a": Dir({"b": Text("")})}) for n in range(20)})
    done = await examined(tree, bounds=Bounds(depth=1))
    assert (done.files, done.cut) == (40, True)
    done = await examined(tree, bounds=Bounds(files=10))
    assert (done.files, done.cut) == (10, True)
    assert not (await examined(tree)).cut
    lines: list[str] = []
    done.findings = [Finding(f"/{n:02}", "length", "…") for n in range(12)] + [Finding("/x", "qid", "…")]
    tell(done, lines.append)
    assert lines[9:11] == ["/09: length: …", "/x: qid: …"]
    assert "2 more of `length`" in lines[11]
    assert "13 findings" in lines[12]
    lines.clear()
    tell(done, lines.append, each=None)
    assert len(lines) == 14


def test_rules_that_no_tree_of_ours_can_break() -> None:
    stat = Stat(st.S_IFREG | 0o444, qid=Qid(0, 0, 1))
    assert [f.kind for f in of_content("/f", stat, Content(b"", iounit=8168), stat)] == ["iounit"]
    later = Stat(st.S_IFREG | 0o444, length=5, mtime=1)
    assert not list(of_content("/f", later, Content(b"", short=True), stat))  # changed meanwhile
    assert [f.kind for f in of_name("/", "x" * 256)] == ["name"]
    assert not list(of_name("/", "x" * 255))


async def test_a_directory_of_this_kernel(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    os.link(tmp_path / "file", tmp_path / "hard")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "closed").mkdir(0o444)
    done = Examination(Local(str(tmp_path)), write=True)
    await done.run()
    assert kinds(done) == {("/fifo", "special"), ("/closed", "mode")}
    assert (tmp_path / "file").read_text() == "text"


@pytest.mark.skipif(not Path("/sys/devices/virtual/net/lo/mtu").exists(), reason="sysfs is not mounted here")
async def test_lengths_of_sysfs() -> None:
    done = Examination(Local("/sys/devices/virtual/net/lo"), Bounds(depth=0))
    await done.run()
    assert ("/mtu", "length") in kinds(done)
    done = Examination(Local("/sys/devices/virtual/net/lo", reads=False), Bounds(depth=0))
    await done.run()
    assert kinds(done) == set()


V9FS = ("rw", "relatime", "sync", "dirsync", "uname=root")


def test_options_of_a_mount() -> None:
    def kinds_of(*options: str) -> list[str]:
        return [finding.kind for finding in of_options("/mnt", (*V9FS, *options))]

    assert kinds_of("access=client", "noxattr", "msize=1048576", "trans=unix") == []
    assert kinds_of("access=client", "trans=unix") == ["noxattr"]
    for cache in ("loose", "fscache", "mmap", "f", "8f", "5"):
        assert kinds_of("noxattr", f"cache={cache}") == ["cache"]
    for cache in ("none", "readahead", "0", "1"):
        assert kinds_of("noxattr", f"cache={cache}") == []
    assert kinds_of("noxattr", "msize=8192") == ["msize"]
    assert kinds_of("noxattr", "access=any") == kinds_of("noxattr", "access=1000") == ["access"]
    assert kinds_of("noxattr", "noextend") == kinds_of("noxattr", "version=9p2000.u") == ["version"]


def test_the_server_of_a_mount() -> None:
    def address(source: str, *options: str) -> str | None:
        return address_of(Mounted("0:40", "/mnt", "9p", source, options))

    assert address("10.0.0.1", "trans=tcp", "port=5640") == "tcp!10.0.0.1!5640"
    assert address("10.0.0.1", "trans=tcp") == "tcp!10.0.0.1!564"
    assert address("/run/mk9p/ns", "trans=unix") == "unix!/run/mk9p/ns"
    assert address("mk9p", "trans=fd") is None


def test_the_mount_line() -> None:
    line = mount_line("tcp!127.0.0.1!5640", "/n", aname="data")
    assert line.startswith("mount -i -t 9p -o trans=tcp,port=5640,version=9p2000.L,msize=1048576,")
    assert line.endswith(" 127.0.0.1 /n")
    assert {"noxattr", "cache=none", "aname=data"} <= set(line.split()[5].split(","))
    assert mount_line("exec!ssh box mk9p serve -l fd!0!1") == "mk9p mount 'exec!ssh box mk9p serve -l fd!0!1' DIR"
    assert mount_line("char!/dev/hvc1", "/n", aname="fs/data") == "mk9p mount --aname fs/data 'char!/dev/hvc1' /n"


def doctor(*words: str) -> tuple[int, list[str], str]:
    done = subprocess.run([sys.executable, "-m", "mk9p", "doctor", *words], capture_output=True, text=True)
    # a busy machine may let it say how far it is
    said = [line for line in done.stderr.splitlines() if not line.endswith("so far")]
    return done.returncode, done.stdout.splitlines(), "\n".join(said)


def test_the_command(tmp_path: Path) -> None:
    with place() as here:
        here.serve()
        status, lines, said = doctor("--write", here.address)
        assert (status, said) == (0, ""), lines
        assert lines[0] == f"{here.address}: 9P2000.L, msize 1048600"
        assert "0 findings" in lines[1]
        assert lines[2].startswith("mount it: mount -i -t 9p -o trans=unix,version=9p2000.L")
    assert doctor(str(tmp_path))[0] == 0
    os.mkfifo(tmp_path / "fifo")
    status, lines, _ = doctor(str(tmp_path))
    assert status == 1
    assert lines[0].startswith("/fifo: special: a named pipe")
    status, lines, said = doctor(f"unix!{tmp_path}/nobody")
    assert (status, lines) == (1, [])
    assert "nobody: " in said
    assert doctor(str(tmp_path / "no"))[0] == 1


def test_it_tells_how_far_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "SILENCE", 0.2)

    async def late() -> str:
        await trio.sleep(0.5)
        return "late\n"

    tree = Dir({"a": Text("quick\n"), "b": Dir({"c": Text(late)})})
    with in_thread(serving_at(f"unix!{tmp_path}/s", tree)):
        assert command.main(["doctor", f"unix!{tmp_path}/s"]) == 0
    told = capsys.readouterr()
    assert (
        "mk9p: 2 files in 2 directories so far\n" in told.err or "mk9p: 3 files in 2 directories so far\n" in told.err
    )
    assert "3 files in 2 directories, 0 findings" in told.out
