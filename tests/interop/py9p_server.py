"""Serve files in memory with py9p's server, under Python 2.7 or 3: `DOTU MSIZE`. Prints its port; ends with its standard input.

Written in what both Pythons understand.
"""

import os
import sys
import threading

from py9p import py9p  # type: ignore[import-untyped]

MYPY = False
if MYPY:  # types are comments here: Python 2.7 reads this too
    from typing import Any, List  # noqa: F401, UP035

PYTHON_2 = sys.version_info[0] == 2


def native(value):  # type: (Any) -> Any
    """The fork gives some names as bytes and some as text; py9p itself only has str."""
    return value if PYTHON_2 or not isinstance(value, bytes) else value.decode("utf-8")


class File:
    count = 0

    def __init__(self, name, perm, content=None):  # type: (str, int, Any) -> None
        File.count += 1
        self.name, self.perm, self.parent = name, perm, self
        self.mtime = 1000000000
        self.is_dir = bool(perm & py9p.DMDIR)
        self.content = content or b""
        self.children = []  # type: List[File]
        self.qid = py9p.Qid(py9p.QTDIR if self.is_dir else 0, 0, File.count)

    def add(self, child):  # type: (File) -> File
        child.parent = self
        self.children.append(child)
        return child

    def entry(self, dotu):  # type: (int) -> Any
        who = ("glenda", "sys", "glenda", "", 7, 8, 7)
        return py9p.Dir(dotu, 0, 0, self.qid, self.perm, self.mtime, self.mtime, len(self.content), self.name, *who)


class Files:
    def __init__(self, dotu):  # type: (int) -> None
        self.dotu = dotu
        self.root = File("/", py9p.DMDIR | 0x1FF)
        self.root.add(File("hello", 0x1A4, b"hello from py9p\n"))
        self.root.add(File("secret", 0, b"nobody sees this\n"))
        self.root.add(File("full", 0x1B6))
        self.root.add(File("big", 0x124, b"".join(b"%06d\n" % n for n in range(20000))))
        many = self.root.add(File("many", py9p.DMDIR | 0x1ED))
        for number in range(200):
            many.add(File("file" + str(number).zfill(3), 0x124, str(number).encode("ascii")))

    def find(self, qid):  # type: (Any) -> File
        found = [self.root]
        for each in found:
            if each.qid.path == qid.path:
                return each
            found += each.children
        raise KeyError(qid)

    def walk(self, server, req):  # type: (Any, Any) -> Any
        at = self.find(req.fid.qid)
        for name in req.ifcall.wname:
            inside = [child for child in at.children if child.name == native(name)]
            if native(name) == "..":
                inside = [at.parent]
            if not inside:
                if not req.ofcall.wqid:
                    return server.respond(req, py9p.Enotfound)
                break
            at = inside[0]
            req.ofcall.wqid.append(at.qid)
        return server.respond(req, None)

    def open(self, server, req):  # type: (Any, Any) -> Any
        file = self.find(req.fid.qid)
        if not file.perm & 0x1FF:
            return server.respond(req, py9p.Eperm)
        if req.ifcall.mode & py9p.OTRUNC:
            file.content = b""
        return server.respond(req, None)

    def create(self, server, req):  # type: (Any, Any) -> Any
        parent = self.find(req.fid.qid)
        if [child for child in parent.children if child.name == native(req.ifcall.name)]:
            return server.respond(req, "file already exists")
        req.ofcall.qid = parent.add(File(native(req.ifcall.name), req.ifcall.perm)).qid
        return server.respond(req, None)

    def read(self, server, req):  # type: (Any, Any) -> Any
        file = self.find(req.fid.qid)
        if file.is_dir:
            req.ofcall.stat = [child.entry(self.dotu) for child in file.children]
            return server.respond(req, None)
        return server.bufread(req, file.content)

    def write(self, server, req):  # type: (Any, Any) -> Any
        file = self.find(req.fid.qid)
        if file.name == "full":
            return server.respond(req, "file system is full, and has been for a while")
        offset, data = req.ifcall.offset, req.ifcall.data
        data = data if isinstance(data, bytes) else b"".join(data)
        file.content = file.content[:offset].ljust(offset, b"\0") + data + file.content[offset + len(data) :]
        req.ofcall.count = len(data)
        return server.respond(req, None)

    def stat(self, server, req):  # type: (Any, Any) -> Any
        req.ofcall.stat = [self.find(req.fid.qid).entry(self.dotu)]
        return server.respond(req, None)

    def wstat(self, server, req):  # type: (Any, Any) -> Any
        file, wish = self.find(req.fid.qid), req.ifcall.stat[0]
        if wish.mode != 0xFFFFFFFF:
            file.perm = wish.mode
        if wish.length != 0xFFFFFFFFFFFFFFFF:
            file.content = file.content[: wish.length].ljust(wish.length, b"\0")
        if wish.name:
            file.name = native(wish.name)
        return server.respond(req, None)

    def remove(self, server, req):  # type: (Any, Any) -> Any
        file = self.find(req.fid.qid)
        if file.children:
            return server.respond(req, "directory not empty")
        file.parent.children.remove(file)
        return server.respond(req, None)


def end_with_stdin():  # type: () -> None
    sys.stdin.read()
    os._exit(0)


def main():  # type: () -> None
    dotu, msize = int(sys.argv[1]), int(sys.argv[2])
    server = py9p.Server(("127.0.0.1", 0), fs=Files(dotu), dotu=dotu, msize=msize)
    sys.stdout.write(str(server.sock.getsockname()[1]) + "\n")
    sys.stdout.flush()
    thread = threading.Thread(target=end_with_stdin)
    thread.daemon = True
    thread.start()
    server.serve()


main()
