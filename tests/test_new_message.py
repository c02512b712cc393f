"""A new message costs its class pair, its op and its client call: nothing else is told of it, and everything knows it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
CHILD = "import trio; from tests import new_message; trio.run(new_message.main)"
PARTS = {
    "wire/linux.py": '''

class Tsum(Message):
    """size[4] Tsum tag[2] fid[4] offset[8] count[4]"""

    type = 60
    tag: t.u16
    fid: t.sees
    offset: t.u64
    count: t.u32


class Rsum(Message):
    """size[4] Rsum tag[2] crc[4]"""

    type = 61
    tag: t.u16
    crc: t.u32
''',
    "server/ops_stored.py": """

async def sum_(c: Connection, tag: int, fid: int, offset: int, count: int) -> Reply:
    import zlib

    data = await settle(_handle(c.session.fid(fid)).read(offset, count))
    return c.reply(m.Rsum, tag, zlib.crc32(data))
""",
    "client/requests.py": """

async def sum_(c: "Connection", fid: int, offset: int, count: int) -> int:
    (crc,) = await c.rpc(m.Tsum, fid, offset, count)
    return crc
""",
}


def test_a_message_is_its_class_pair_its_op_and_its_client_call(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "mk9p", tmp_path / "mk9p", symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("servers", "clients"):
        (tmp_path / name).symlink_to(ROOT / name)
    for name, text in PARTS.items():
        with (tmp_path / "mk9p" / name).open("a") as file:
            file.write(text)
    child = subprocess.run(
        [sys.executable, "-P", "-c", CHILD],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.splitlines() == ["served", "traced", "called", "counted", "ordered", "relayed"]
