"""Do what is told with py9p's client, under Python 2.7 or 3: `HOST PORT DOTU MSIZE UNAME`, then a JSON list of [method, arguments...] on stdin.

Prints a JSON list of what each gave: {"ok": VALUE} or {"error": WORDS}. Written in what both Pythons understand.
"""

import json
import socket
import sys

from py9p import py9p  # type: ignore[import-untyped]

MYPY = False
if MYPY:  # types are comments here: Python 2.7 reads this too
    from typing import Any  # noqa: F401

PYTHON_2 = sys.version_info[0] == 2


def text(value):  # type: (Any) -> str
    """py9p gives bytes, which are str under Python 2."""
    return value.decode("utf-8") if isinstance(value, bytes) else value


def native(value):  # type: (Any) -> Any
    """json gives text, which py9p does not take under Python 2."""
    return value.encode("utf-8") if PYTHON_2 and not isinstance(value, (int, str)) else value


def read(client, path, count=8192):  # type: (Any, str, int) -> Any
    client.open(path)
    parts = []
    while True:
        part = client.read(count)
        if not part:
            break
        parts.append(part)
    client.close()
    return text(b"".join(parts))


def write(client, path, words, mode=py9p.OWRITE):  # type: (Any, str, Any, Any) -> Any
    client.open(path, mode)
    count = client.write(words if PYTHON_2 else words.encode("utf-8"))
    client.close()
    return count


def create(client, path, words):  # type: (Any, str, Any) -> Any
    client.create(path, 0x1A4, py9p.OWRITE)
    count = client.write(words if PYTHON_2 else words.encode("utf-8"))
    client.close()
    return count


def remove(client, path):  # type: (Any, str) -> None
    client.rm(path)


def names(client, path):  # type: (Any, str) -> Any
    client.open(path)
    found = [text(entry.name) for entry in client.lsdir()]
    client.close()
    return found


def stat(client, path):  # type: (Any, str) -> Any
    (found,) = client.stat(path)
    kind = found.qid.type & 0xFF  # the fork reads it as a signed number
    return {
        "name": text(found.name),
        "mode": found.mode,
        "length": found.length,
        "uid": text(found.uid),
        "gid": text(found.gid),
        "uidnum": found.uidnum,
        "path": found.qid.path,
        "type": kind,
    }


def cd(client, path):  # type: (Any, str) -> Any
    return client.cd(path)


def flush(client):  # type: (Any) -> bool
    return bool(client._flush(1, 1).type == py9p.Rflush)


def call(client, order):  # type: (Any, Any) -> Any
    try:
        return {"ok": globals()[order[0]](client, *order[1:])}
    except py9p.RpcError as error:
        return {"error": text(error.args[0])}


def connect(host, port, dotu, msize, uname):  # type: (str, int, int, int, str) -> Any
    sock = socket.create_connection((host, port), 30)
    credentials = py9p.Credentials(uname)
    if PYTHON_2:
        return py9p.Client(sock, credentials, dotu=dotu, msize=msize)
    version = py9p.Version.v9P2000u if dotu else py9p.Version.v9P2000
    return py9p.Client(sock, credentials, ver=version, msize=msize)


def main():  # type: () -> None
    host, port, dotu, msize, uname = sys.argv[1:]
    client = connect(host, int(port), int(dotu), int(msize), uname)
    orders = [[native(word) for word in order] for order in json.loads(sys.stdin.read())]
    answers = [{"ok": client.msize}] + [call(client, order) for order in orders]
    for fid in (client.ROOT, client.CWD):  # its _fullclose fails in 1.0.8
        client._clunk(fid)
    sys.stdout.write(json.dumps(answers))


main()
