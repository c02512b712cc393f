"""Frames spelled out by hand from the manuals, and the numbers of the messages: what a mistake in the description would break."""

import pytest

from mk9p.wire import (
    AT_REMOVEDIR,
    GETATTR_ALL,
    GETATTR_BASIC,
    NOFID,
    NOTAG,
    Dialect,
    Qid,
    WireStat,
    decode,
    encode,
    pack_dirents,
)
from mk9p.wire import messages as m
from mk9p.wire.messages import MESSAGES, Message

P9, U, L = Dialect
QID = Qid(0x80, 1, 0x0102030405060708)
Q = "80 01000000 0807060504030201"
STAT = WireStat(1, 2, QID, 0x800001ED, 3, 4, 5, "n", "u", "g", "m", "x", 6, 7, 8)
S = f"0100 02000000 {Q} ed010080 03000000 04000000 0500000000000000 0100 6e 0100 75 0100 67 0100 6d"

GOLDEN: list[tuple[Dialect, Message, str]] = [
    (P9, m.Tversion(NOTAG, 8192, "9P2000"), "13000000 64 ffff 00200000 0600 395032303030"),
    (L, m.Tversion(NOTAG, 131096, "9P2000.L"), "15000000 64 ffff 18000200 0800 3950323030302e4c"),
    (P9, m.Rversion(NOTAG, 8192, "unknown"), "14000000 65 ffff 00200000 0700 756e6b6e6f776e"),
    (P9, m.Tattach(1, 2, NOFID, "me", ""), "15000000 68 0100 02000000 ffffffff 0200 6d65 0000"),
    (L, m.Tattach(1, 2, NOFID, "", "a", 1000), "18000000 68 0100 02000000 ffffffff 0000 0100 61 e8030000"),
    (U, m.Tauth(1, 2, "me", "", 0), "15000000 66 0100 02000000 0200 6d65 0000 00000000"),
    (P9, m.Rattach(1, QID), f"14000000 69 0100 {Q}"),
    (P9, m.Rerror(1, "no"), "0b000000 6b 0100 0200 6e6f"),
    (U, m.Rerror(1, "no", 2), "0f000000 6b 0100 0200 6e6f 02000000"),
    (L, m.Rlerror(1, 2), "0b000000 07 0100 02000000"),
    (P9, m.Tflush(1, 2), "09000000 6c 0100 0200"),
    (P9, m.Twalk(1, 2, 3, ("usr", "é")), "1a000000 6e 0100 02000000 03000000 0200 0300 757372 0200 c3a9"),
    (P9, m.Rwalk(1, (QID, QID)), f"23000000 6f 0100 0200 {Q} {Q}"),
    (U, m.Tcreate(1, 2, "n", 0x1ED, 1, "b 8 0"), "1a000000 72 0100 02000000 0100 6e ed010000 01 0500 6220382030"),
    (P9, m.Tread(1, 2, 3, 4), "17000000 74 0100 02000000 0300000000000000 04000000"),
    (P9, m.Rread(1, b"hi"), "0d000000 75 0100 02000000 6869"),
    (P9, m.Twrite(1, 2, 3, b"hi"), "19000000 76 0100 02000000 0300000000000000 02000000 6869"),
    (P9, m.Rstat(1, STAT), f"3e000000 7d 0100 3500 3300 {S}"),
    (U, m.Twstat(1, 2, STAT), f"51000000 7e 0100 02000000 4400 4200 {S} 0100 78 06000000 07000000 08000000"),
    (L, m.Tlopen(1, 2, 0o100001), "0f000000 0c 0100 02000000 01800000"),
    (L, m.Rlopen(1, QID, 0), f"18000000 0d 0100 {Q} 00000000"),
    (L, m.Tlcreate(1, 2, "n", 0o101, 0o644, 9), "1a000000 0e 0100 02000000 0100 6e 41000000 a4010000 09000000"),
    (L, m.Tsymlink(1, 2, "n", "to", 9), "16000000 10 0100 02000000 0100 6e 0200 746f 09000000"),
    (L, m.Tmknod(1, 2, "n", 3, 4, 5, 6), "1e000000 12 0100 02000000 0100 6e 03000000 04000000 05000000 06000000"),
    (L, m.Trename(1, 2, 3, "n"), "12000000 14 0100 02000000 03000000 0100 6e"),
    (L, m.Tgetattr(1, 2, GETATTR_BASIC), "13000000 18 0100 02000000 ff07000000000000"),
    (
        L,
        m.Rgetattr(1, GETATTR_ALL, QID, 0o40755, *range(1, 18)),
        f"a0000000 19 0100 ff3f000000000000 {Q} ed410000 01000000 02000000"
        + "".join(f"{i:02x}00000000000000" for i in range(3, 18)),
    ),
    (
        L,
        m.Tsetattr(1, 2, 8, 3, 4, 5, 6, 7, 8, 9, 10),
        "43000000 1a 0100 02000000 08000000 03000000 04000000 05000000 0600000000000000"
        "0700000000000000 0800000000000000 0900000000000000 0a00000000000000",
    ),
    (L, m.Txattrwalk(1, 2, 3, "n"), "12000000 1e 0100 02000000 03000000 0100 6e"),
    (L, m.Txattrcreate(1, 2, "n", 3, 4), "1a000000 20 0100 02000000 0100 6e 0300000000000000 04000000"),
    (L, m.Treaddir(1, 2, 3, 4), "17000000 28 0100 02000000 0300000000000000 04000000"),
    (
        L,
        m.Rreaddir(1, pack_dirents([(QID, 2, 4, "ab")])),
        f"25000000 29 0100 1a000000 {Q} 0200000000000000 04 0200 6162",
    ),
    (L, m.Tfsync(1, 2, 1), "0f000000 32 0100 02000000 01000000"),
    (
        L,
        m.Tlock(1, 2, 1, 1, 3, 4, 5, "h"),
        "27000000 34 0100 02000000 01 01000000 0300000000000000 0400000000000000 05000000 0100 68",
    ),
    (L, m.Rlock(1, 2), "08000000 35 0100 02"),
    (
        L,
        m.Tgetlock(1, 2, 1, 3, 4, 5, "h"),
        "23000000 36 0100 02000000 01 0300000000000000 0400000000000000 05000000 0100 68",
    ),
    (
        L,
        m.Rstatfs(1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        "43000000 09 0100 02000000 03000000 0400000000000000 0500000000000000 0600000000000000"
        "0700000000000000 0800000000000000 0900000000000000 0a000000",
    ),
    (L, m.Tlink(1, 2, 3, "n"), "12000000 46 0100 02000000 03000000 0100 6e"),
    (L, m.Tmkdir(1, 2, "n", 0o755, 9), "16000000 48 0100 02000000 0100 6e ed010000 09000000"),
    (L, m.Trenameat(1, 2, "a", 3, "b"), "15000000 4a 0100 02000000 0100 61 03000000 0100 62"),
    (L, m.Tunlinkat(1, 2, "n", AT_REMOVEDIR), "12000000 4c 0100 02000000 0100 6e 00020000"),
]

# Linux's enum p9_msg_t; the answer to a request has the next number.
REQUESTS = {
    "statfs": 8,
    "lopen": 12,
    "lcreate": 14,
    "symlink": 16,
    "mknod": 18,
    "rename": 20,
    "readlink": 22,
    "getattr": 24,
    "setattr": 26,
    "xattrwalk": 30,
    "xattrcreate": 32,
    "readdir": 40,
    "fsync": 50,
    "lock": 52,
    "getlock": 54,
    "link": 70,
    "mkdir": 72,
    "renameat": 74,
    "unlinkat": 76,
    "version": 100,
    "auth": 102,
    "attach": 104,
    "flush": 108,
    "walk": 110,
    "open": 112,
    "create": 114,
    "read": 116,
    "write": 118,
    "clunk": 120,
    "remove": 122,
    "stat": 124,
    "wstat": 126,
}


@pytest.mark.parametrize(("dialect", "message", "frame"), GOLDEN, ids=lambda value: getattr(value, "name", None))
def test_golden(dialect: Dialect, message: Message, frame: str) -> None:
    assert encode(dialect, message).hex() == frame.replace(" ", "")
    if dialect is not P9:
        assert decode(dialect, bytes.fromhex(frame)) == message


def test_numbers() -> None:
    numbers = {"Rlerror": 7, "Rerror": 107}
    for name, number in REQUESTS.items():
        numbers |= {f"T{name}": number, f"R{name}": number + 1}
    assert {cls.__name__: cls.type for cls in MESSAGES} == numbers
