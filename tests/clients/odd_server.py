"""A server of 9P2000.L that says what no server should, for the tests of mounts: `python odd_server.py unix!PATH` serves a socket until it is ended.

What a file's name says is what is odd about it; all else of it is as it should be.
"""

import errno
import socket
import stat as st
import sys
import threading
from typing import Any, Final

from mk9p.wire import QTDIR, QTFILE, QTSYMLINK, Dialect, Qid, codec, pack_dirents
from mk9p.wire import messages as m

TOP: Final = (1 << 64) - 1
DIR, FILE, LINK = st.S_IFDIR | 0o755, st.S_IFREG | 0o644, st.S_IFLNK | 0o777
PLAIN: Final = (FILE, 0, 0, 1, 0, 5, 4096, 8, 1, 2, 3, 4, 5, 6, 0, 0, 0, 0)
"""mode uid gid nlink rdev size blksize blocks, then seconds and ns of access, change of contents, of status and birth, generation, version."""


def like(base: int = FILE, **changes: int) -> tuple[int, ...]:
    """Return a status in which some numbers are others."""
    order = "mode uid gid nlink rdev size blksize blocks asec ansec msec mnsec csec cnsec bsec bnsec gen ver"
    keys = tuple(order.split(" "))
    now = dict(zip(keys, PLAIN, strict=True)) | {"mode": base} | changes
    return tuple(now[key] for key in keys)


NUMBERS: Final = {
    "plain": PLAIN,
    "size": like(size=TOP),
    "links": like(nlink=TOP),
    "nolinks": like(nlink=0),
    "owner": like(uid=0xFFFFFFFF, gid=0xFFFFFFFF),
    "device": like(st.S_IFCHR | 0o600, rdev=TOP),
    "blksize0": like(blksize=0),
    "blksize": like(blksize=TOP),
    "blocks": like(blocks=TOP),
    "before": like(asec=TOP, msec=TOP - 9, csec=TOP),
    "first": like(asec=1 << 63, msec=1 << 63, csec=1 << 63),
    "last": like(asec=(1 << 63) - 1, msec=(1 << 63) - 1, csec=(1 << 63) - 1),
    "nsec": like(ansec=TOP, mnsec=TOP, cnsec=TOP),
    "kind": like(0o030644),
    "nokind": like(0o644),
    "bits": like(0xFFFFFFFF & ~st.S_IFMT(0xFFFFFFFF) | st.S_IFREG),
}
REFUSED: Final = {"nosys": errno.ENOSYS, "inner": 512, "zero": 0, "most": 0xFFFFFFFF, "big": 4095}
NAMES: Final = ("", ".", "..", "a/b", "/etc", "x" * 256, "y" * 60000, "ok")
DIRS: Final[dict[str, tuple[str, ...]]] = {
    "": ("plain", "sub"),
    "sub": ("plain",),
    "numbers": tuple(NUMBERS),
    "names": NAMES,
    "same": ("one", "two", "d1", "d2", "hard1", "hard2"),
    "d1": ("in1",),
    "d2": ("in2",),
    "loop": ("loop2",),
    "loop2": ("again",),
    "again": ("loop2",),
    "refused": tuple(REFUSED),
    "replies": ("more", "wzero", "wmore", "long", "nullink", "turns", "ends"),
    "missing": ("gone", "plain"),
    "repeated": ("plain",) * 10,
}
QIDS: Final = {"one": 42, "two": 42, "d1": 43, "d2": 43, "hard1": 44, "hard2": 44, "loop": 45, "again": 45}
TARGETS: Final = {"long": "x" * 60000, "nullink": "a\0b"}


def qid(name: str) -> Qid:
    kind = QTDIR if name in DIRS else QTSYMLINK if name in TARGETS else QTFILE
    return Qid(kind, 0, QIDS.get(name) or 1000 + sum(byte << 8 * (at % 6) for at, byte in enumerate(name.encode())))


class Talk:
    """One connection."""

    def __init__(self, link: socket.socket) -> None:
        self.link, self.file = link, link.makefile("rb")
        self.fids: dict[int, str] = {}
        self.asked = 0

    def send(self, cls: Any, tag: int, *fields: Any) -> None:
        self.link.sendall(codec(Dialect.L, cls.type).pack(tag, *fields))

    def run(self) -> None:
        # a line that stays open when nobody answers on it any more is a silent server, and not the odd one that is tried
        with self.link, self.file:
            while len(head := self.file.read(4)) == 4:
                frame = head + self.file.read(int.from_bytes(head, "little") - 4)
                number = frame[4]
                tag, *fields = codec(Dialect.L, number).unpack(frame, 5, len(frame))
                try:
                    self.answer(number, tag, *fields)
                except OSError as error:
                    self.send(m.Rlerror, tag, error.errno)

    def answer(self, number: int, tag: int, *fields: Any) -> None:
        if number == m.Tversion.type:
            self.send(m.Rversion, tag, min(fields[0], 65536), "9P2000.L")
            return
        if number == m.Tattach.type:
            self.fids[fields[0]] = ""
            self.send(m.Rattach, tag, qid(""))
            return
        if number == m.Tflush.type:
            self.send(m.Rflush, tag)
            return
        name = self.fids.get(fields[0], "")
        if number == m.Twalk.type:
            self.walk(tag, *fields)
        elif number == m.Tgetattr.type:
            if name == "ends":
                self.link.shutdown(socket.SHUT_RDWR)
                return
            self.asked += 1
            turned = name == "turns" and self.asked % 2
            kind = DIR if name in DIRS or turned else LINK if name in TARGETS else FILE
            stat = NUMBERS.get(name) or like(kind, nlink=2 if name.startswith("hard") else 1)
            self.send(m.Rgetattr, tag, 0x7FF, qid(name), *stat)
        elif number == m.Tlopen.type:
            if name in REFUSED:
                self.send(m.Rlerror, tag, REFUSED[name])
                return
            self.send(m.Rlopen, tag, qid(name), 0)
        elif number == m.Treaddir.type:
            listed = DIRS[name] if not fields[1] else ()
            self.send(
                m.Rreaddir, tag, pack_dirents([(qid(entry), at + 1, 0, entry) for at, entry in enumerate(listed)])
            )
        elif number == m.Tread.type:
            data = b"hello" if name in NUMBERS else f"I am {name}\n".encode()
            data = b"M" * (fields[2] + 1000) if name == "more" else data[fields[1] : fields[1] + fields[2]]
            self.send(m.Rread, tag, data)
        elif number == m.Twrite.type:
            count = {"wzero": 0, "wmore": 0xFFFFFFFF}.get(name, len(fields[2]))
            self.send(m.Rwrite, tag, count)
        elif number == m.Treadlink.type:
            target = TARGETS[name]
            frame = codec(Dialect.L, m.Rreadlink.type).pack(tag, target.replace("\0", "."))
            self.link.sendall(frame if "\0" not in target else frame.replace(b"a.b", b"a\0b"))
        elif number == m.Tclunk.type:
            self.fids.pop(fields[0], None)
            self.send(m.Rclunk, tag)
        elif number == m.Tsetattr.type:
            self.send(m.Rsetattr, tag)
        elif number == m.Tstatfs.type:
            self.send(m.Rstatfs, tag, 0xFFFFFFFF, 0, TOP, TOP, TOP, TOP, TOP, TOP, 0xFFFFFFFF)
        else:
            raise OSError(errno.EOPNOTSUPP, "no")

    def walk(self, tag: int, fid: int, newfid: int, names: tuple[str, ...]) -> None:
        if fid not in self.fids:
            raise OSError(errno.EBADF, "no")
        at, qids = self.fids[fid], []
        for name in names:
            if (name not in DIRS.get(at, ()) and name not in DIRS) or name == "gone":
                break
            at = name
            qids.append(qid(name))
        if names and not qids:
            raise OSError(errno.ENOENT, "no")
        if len(qids) == len(names):
            self.fids[newfid] = at
        self.send(m.Rwalk, tag, qids)


def main(address: str) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.removeprefix("unix!"))
    listener.listen()
    print("listening", file=sys.stderr, flush=True)
    while True:
        link, _ = listener.accept()
        threading.Thread(target=Talk(link).run, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
