"""The process that holds a v9fs mount (clients/kept.py), with a raw client where v9fs would be: the composer behind it is killed again and again.

Every answered and synced byte must be right, and no fid is lost. The gaps are printed: `pytest -s`; MK9P_LONG=1 kills a hundred times.
"""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mk9p.clients.kept import held
from mk9p.clients.mounts import mounted_at
from mk9p.clients.v9fs import Wish
from mk9p.errors import NineError
from mk9p.testing import child, hear, until_true
from mk9p.wire import L_RDWR, NOFID, NOTAG, Dialect, FrameBuffer, codec, decode
from mk9p.wire import messages as m
from tests.clients.mounting import need_fuse

BLOCK = 512
WRITES = 40  # between two kills
WAIT = 60


class V9fs:
    """A client as v9fs: one request at a time."""

    def __init__(self, fd: int) -> None:
        self.socket = socket.socket(fileno=fd)
        self.socket.settimeout(120)
        self.frames = FrameBuffer(1 << 20)
        self.rpc(m.Tversion, 1 << 17, Dialect.L.version, tag=NOTAG)
        self.rpc(m.Tattach, 0, NOFID, "root", "", 0)

    def rpc(self, cls: type[m.Message], *fields: Any, tag: int = 0) -> Any:
        """Make a request. Raises what the server says."""
        self.socket.sendall(codec(Dialect.L, cls.type).pack(tag, *fields))
        while (frame := self.frames.next()) is None:
            count = self.socket.recv_into(self.frames.space())
            assert count, "the mount is dead"
            self.frames.received(count)
        reply = decode(Dialect.L, bytes(self.frames.view[slice(*frame)]))
        if isinstance(reply, m.Rlerror):
            raise NineError(reply.ecode)
        return reply

    def opened(self, fid: int, path: str, flags: int = 0) -> None:
        names = tuple(path.split("/"))
        assert len(self.rpc(m.Twalk, 0, fid, names).qids) == len(names)
        self.rpc(m.Tlopen, fid, flags)


@contextmanager
def composer(path: Path) -> Iterator["Composer"]:
    made = Composer(path)
    made.start()
    try:
        yield made
    finally:
        made.kill()


class Composer:
    """`mk9p compose`, which can be killed and started again."""

    def __init__(self, path: Path) -> None:
        self.command = [
            sys.executable,
            "-m",
            "mk9p",
            "compose",
            "-l",
            f"unix!{path}/ns",
            "--state",
            str(path / "table"),
        ]
        self.process: subprocess.Popen[str]

    def start(self) -> None:
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        hear(self.process, "listening on")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, Composer]]:
    """Return a directory that `mk9p serve` gives, and the composer in front of it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    home = tmp_path / "home"
    home.mkdir()
    serve = [sys.executable, "-m", "mk9p", "serve", "-l", f"unix!{tmp_path}/k1", f"fs:{home}", "cpu"]
    with child(serve, "listening on"), composer(tmp_path) as it:
        words = ["-a", f"unix!{tmp_path}/ns", "write", "ctl", f"mount -c unix!{tmp_path}/k1 /k/k1"]
        subprocess.run([sys.executable, "-m", "mk9p", *words], check=True)
        yield home, it  # the table comes back with the composer


class Writer(threading.Thread):
    """A client with a mount of its own, who writes blocks to a file and syncs each, until `stop`. `wrong` is what went wrong."""

    def __init__(self, seed: int, address: str, file: Path) -> None:
        super().__init__()
        self.random, self.file = random.Random(seed), file
        file.write_bytes(bytes(64 * BLOCK))
        self.blocks = [bytes(BLOCK)] * 64
        self.done, self.answered = 0, 0.0
        self.stop = threading.Event()
        self.wrong: BaseException | None = None
        self.v9fs = V9fs(held(address, Wish(wait=WAIT)))

    def run(self) -> None:
        try:
            v9fs = self.v9fs
            v9fs.opened(5, f"k/k1/fs/home/{self.file.name}", L_RDWR)
            v9fs.rpc(m.Twalk, 0, 6, ("k", "k1", "cpu", "status"))
            before = v9fs.rpc(m.Tgetattr, 6, 0x7FF).qid
            while not self.stop.is_set():
                at, block = self.random.randrange(64), self.random.randbytes(BLOCK)
                self.blocks[at] = block
                assert v9fs.rpc(m.Twrite, 5, at * BLOCK, block).count == BLOCK
                v9fs.rpc(m.Tfsync, 5, 0)
                self.done, self.answered = self.done + 1, time.monotonic()
                assert bytes(v9fs.rpc(m.Tread, 5, at * BLOCK, BLOCK).data) == block
            assert v9fs.rpc(m.Tgetattr, 6, 0x7FF).qid == before
        except BaseException as error:
            self.wrong = error
        finally:
            self.v9fs.socket.close()


def test_no_written_and_synced_byte_is_lost_whoever_kills_the_composer(
    tmp_path: Path, lab: tuple[Path, Composer], long: bool
) -> None:
    home, it = lab
    writers = [Writer(seed, f"unix!{tmp_path}/ns", home / f"f{seed}") for seed in range(4)]
    gaps: list[float] = []
    try:
        for writer in writers:
            writer.start()
        for _ in range(100 if long else 3):
            then = [writer.done + (250 if long else 10) for writer in writers]
            all_done(writers, lambda then=then: all(w.done >= n for w, n in zip(writers, then, strict=True)))  # type: ignore[misc]
            it.kill()
            it.start()
            back = time.monotonic()
            all_done(writers, lambda back=back: all(writer.answered > back for writer in writers))  # type: ignore[misc]
            gaps.append(max(writer.answered for writer in writers) - back)
    finally:
        for writer in writers:
            writer.stop.set()
        for writer in writers:
            writer.join()
    assert [writer.wrong for writer in writers] == [None] * 4
    for writer in writers:
        assert writer.file.read_bytes() == b"".join(writer.blocks)
    gaps.sort()
    print(
        f"{sum(writer.done for writer in writers)} synced writes of 4 clients, {len(gaps)} kills; all have an answer after the composer is back: "
        f"p50 {gaps[len(gaps) // 2] * 1000:.0f} ms, worst {gaps[-1] * 1000:.0f} ms"
    )


def all_done(writers: list[Writer], check: Callable[[], bool]) -> None:
    """Wait for something, as long as no writer has failed."""
    until_true(lambda: check() or any(writer.wrong for writer in writers), 2 * WAIT)
    assert [writer.wrong for writer in writers] == [None] * 4


def test_a_fuse_mount_goes_on_whoever_kills_the_composer(
    tmp_path: Path, lab: tuple[Path, Composer], long: bool
) -> None:
    need_fuse()
    home, it = lab
    (home / "f").write_bytes(bytes(64 * BLOCK))
    (home / "d").mkdir()
    where = tmp_path / "mnt"
    where.mkdir()
    command = ["mount", "--fuse", "-w", str(WAIT), f"unix!{tmp_path}/ns", str(where)]
    subprocess.run([sys.executable, "-m", "mk9p", *command], check=True)
    try:
        device = mounted_at(str(where))
        rand, blocks, gaps = random.Random(2), [bytes(BLOCK)] * 64, list[float]()
        fd = os.open(where / "k/k1/fs/home/f", os.O_RDWR)
        for round_ in range(100 if long else 3):
            for number in range(WRITES):
                if number == WRITES // 2:
                    it.kill()
                    it.start()
                    back = time.monotonic()
                at, block = rand.randrange(64), rand.randbytes(BLOCK)
                blocks[at] = block
                assert os.pwrite(fd, block, at * BLOCK) == BLOCK
                os.fsync(fd)
                if number == WRITES // 2:
                    gaps.append(time.monotonic() - back)
                assert os.pread(fd, BLOCK, at * BLOCK) == block
            # names too, that the mount looked up before
            (where / f"k/k1/fs/home/d/{round_}").write_text("new")
            assert len(os.listdir(where / "k/k1/fs/home/d")) == round_ + 1
            assert "online" in (where / "k/k1/cpu/status").read_text()
        os.close(fd)
        assert (home / "f").read_bytes() == b"".join(blocks)
        assert mounted_at(str(where)) == device, "it is the same mount"
        gaps.sort()
        print(f"FUSE: p50 {gaps[len(gaps) // 2] * 1000:.0f} ms, worst {gaps[-1] * 1000:.0f} ms")
    finally:
        subprocess.run([sys.executable, "-m", "mk9p", "umount", str(where)], check=True)


def test_a_mount_of_nothing_fails_at_once(tmp_path: Path) -> None:
    with pytest.raises(NineError, match="no such socket"):
        held(f"unix!{tmp_path}/none", Wish(wait=WAIT))


def test_the_process_ends_with_its_mount(tmp_path: Path, lab: tuple[Path, Composer]) -> None:
    fd = held(f"unix!{tmp_path}/ns", Wish(wait=WAIT))
    end = os.fdopen(fd, "rb", buffering=0)
    mine = socket.fromfd(fd, socket.AF_UNIX, socket.SOCK_STREAM)
    mine.shutdown(socket.SHUT_WR)
    assert end.read(1) == b"", "it has closed its end"
    mine.close()
    end.close()
