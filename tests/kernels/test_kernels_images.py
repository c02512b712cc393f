"""Where kernels come from: packages, on a made-up apt; paths; what is missing; the initramfs."""

# ruff: noqa: ASYNC221, ASYNC240 - nothing else runs in these tests

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.servers.kernels import backend, images, initramfs, packages, qemu, tools

APT_GET = """#!/bin/sh
# a made-up mirror: `download` finds its package once `update` was run
echo "$@" >>{log}
while [ "$1" = -o ]; do shift 2; done
case $1 in
update) touch {updated};;
download) [ -e {updated} ] || {{ echo "E: 404 Not Found" >&2; exit 100; }}; cp {deb} .;;
esac
"""
NOTHING = "#!/bin/sh\nwhile [ $1 = -o ]; do shift 2; done; [ $1 = update ] || { echo 'E: Unable to locate package' >&2; exit 1; }\n"
APT_CACHE = "#!/bin/sh\necho linux-image-new; echo '  Depends: linux-image-9.9.0-1-new'\n"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a made-up apt first on the path, with one real package; return its log."""
    if shutil.which("dpkg-deb") is None:
        pytest.skip("no dpkg-deb: not a Debian machine")
    made = tmp_path / "package"
    (made / "DEBIAN").mkdir(parents=True)
    (made / "DEBIAN/control").write_text(
        "Package: x\nVersion: 1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: x\n"
    )
    for name, content in {
        "usr/bin/linux.uml": b"\x7fELF uml_dir= Linux version 9.9",
        "usr/lib/modules/9.9/kernel/fs/9p/9p.ko": b"\0depends=9pnet\0 nine",
        "usr/lib/modules/9.9/kernel/net/9p/9pnet.ko": b"\0depends=\0 net",
        "usr/lib/modules/9.9/kernel/sound/noise.ko": b"\0depends=\0 not kept",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_bytes(content)
    deb = tmp_path / "x.deb"
    subprocess.run(["dpkg-deb", "-b", made, deb], check=True, stdout=subprocess.DEVNULL)
    programs = tmp_path / "bin"
    programs.mkdir()
    words = {"log": tmp_path / "log", "updated": tmp_path / "updated", "deb": deb}
    (programs / "apt-get").write_text(APT_GET.format(**words))
    (programs / "apt-cache").write_text(APT_CACHE)
    for program in programs.iterdir():
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("MK9P_CACHE", str(tmp_path / "cache"))
    return tmp_path / "log"


async def test_fetched_once_by_two_at_once(mirror: Path) -> None:
    (mirror.parent / "updated").touch()
    said: list[str] = []
    got: list[images.Image] = []

    async def get() -> None:
        got.append(await images.get("linux-image-new", report=said.append))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(get)
        nursery.start_soon(get)
    assert got[0] == got[1]
    assert mirror.read_text().count("download") == 1
    assert said == ["downloading linux-image-9.9.0-1-new", "unpacking linux-image-9.9.0-1-new"]
    assert got[0].uml
    assert set(got[0].modules) == {"9p", "9pnet"}
    assert list(got[0].closure(["9p", "built-in"])) == ["9pnet", "9p"]
    shutil.rmtree(mirror.parent / "bin")  # and from now on without any mirror
    assert await images.get("linux-image-new") == got[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="apt-get update needs root")
async def test_old_lists_are_renewed_once(mirror: Path) -> None:
    await images.get("linux-image-new")
    words = [set(line.split()) & {"download", "update"} for line in mirror.read_text().splitlines()]
    assert words == [{"download"}, {"update"}, {"download"}]


async def test_what_cannot_be_had_leaves_nothing(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (mirror.parent / "bin/apt-get").write_text(NOTHING)
    with pytest.raises(NineError, match="Unable to locate package") as caught:
        await images.get("linux-image-new")
    assert caught.value.errno == errno.ENOENT
    assert "\n" not in str(caught.value)
    assert [path.name for path in (mirror.parent / "cache").iterdir()] == [".linux-image-new.lock"]


async def test_without_a_network_that_is_said_after_the_first_attempt(mirror: Path) -> None:
    words = "E: Failed to fetch http://deb.example/x.deb  Temporary failure resolving 'deb.example'"
    log = mirror.parent / "log"
    (mirror.parent / "bin/apt-get").write_text(f'#!/bin/sh\necho "$@" >>{log}\necho "{words}" >&2\nexit 100\n')
    with pytest.raises(
        NineError, match=r"no network to fetch .* \(Temporary failure resolving 'deb.example'\)"
    ) as caught:
        await images.get("linux-image-new")
    assert caught.value.errno == errno.ENETUNREACH
    (said,) = log.read_text().splitlines()
    assert "Acquire::Retries=0" in said


async def test_a_cancelled_fetch_leaves_nothing(mirror: Path) -> None:
    fifo = mirror.parent / "fifo"
    os.mkfifo(fifo)
    (mirror.parent / "bin/apt-get").write_text(f"#!/bin/sh\nexec cat {fifo}\n")  # a mirror that never answers
    async with trio.open_nursery() as nursery:
        nursery.start_soon(images.get, "linux-image-new")
        file = await trio.to_thread.run_sync(lambda: fifo.open("w"))  # it is asked
        nursery.cancel_scope.cancel()
    file.close()
    assert [path.name for path in (mirror.parent / "cache").iterdir()] == [".linux-image-new.lock"]


async def test_what_an_older_mk9p_unpacked_is_fetched_again_if_it_can_be(mirror: Path) -> None:
    (mirror.parent / "updated").touch()
    got = await images.get("linux-image-new")
    place = mirror.parent / "cache/linux-image-new"
    (place / packages.KEPT).write_text("less")
    nine = got.modules["9p"]
    nine.unlink()
    assert "9p" in (await images.get("linux-image-new")).modules
    assert mirror.read_text().count("download") == 2
    (place / packages.KEPT).write_text("less")
    nine.unlink()
    (mirror.parent / "bin/apt-get").write_text(NOTHING)
    said: list[str] = []
    assert set((await images.get("linux-image-new", report=said.append)).modules) == {"9pnet"}
    assert "belongs to an older mk9p, and stays: " in said[-1]
    assert {path.name for path in (mirror.parent / "cache").iterdir()} == {".linux-image-new.lock", "linux-image-new"}


@pytest.mark.parametrize("kernel", ["", "..", "a b", "-x"])
async def test_a_name_that_cannot_be_one(kernel: str) -> None:
    with pytest.raises(NineError, match="no such kernel") as caught:
        await images.get(kernel)
    assert caught.value.errno == errno.EINVAL


async def test_a_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await images.get(str(tmp_path / "none"))
    wrong = tmp_path / "wrong"
    wrong.write_bytes(b"not a kernel" * 1000)
    with pytest.raises(NineError, match="not a Linux bzImage"):
        await images.get(str(wrong))
    uml = tmp_path / "boot/linux"
    (tmp_path / "lib/modules/9.9/kernel").mkdir(parents=True)
    (tmp_path / "lib/modules/9.9/kernel/a-b.ko").write_bytes(b"")
    uml.parent.mkdir()
    uml.write_bytes(b"\x7fELF ... Linux version 9.9 (x) ... uml_dir= ...")
    image = await images.get(str(uml))
    assert image.uml
    assert set(image.modules) == {"a_b"}


async def test_a_missing_tool_says_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tools, "path", lambda: str(tmp_path))
    with pytest.raises(FileNotFoundError) as caught:
        await qemu.Qemu().prepare(backend.Spec(name="k1", kernel="6.1"), report=print)
    assert str(caught.value) == "qemu-system-x86_64 is missing: apt-get install -y qemu-system-x86"


async def test_no_root_says_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(PermissionError, match="run as root"):
        tools.need_root("a uml kernel")
    monkeypatch.delenv("MK9P_CACHE", raising=False)
    assert packages.cache() == Path.home() / ".cache/mk9p"


async def test_the_initramfs_is_a_cpio_of_the_right_things(mirror: Path, tmp_path: Path) -> None:
    if shutil.which("busybox") is None:
        pytest.skip("no busybox: apt-get install busybox-static")
    (mirror.parent / "updated").touch()
    image = await images.get("linux-image-new")
    path = await initramfs.build(image)
    assert await initramfs.build(image) == path
    assert await initramfs.build(image, modules=["9p"]) != path
    with path.open("rb") as file:
        listed = subprocess.run(
            ["busybox", "cpio", "-t"], stdin=file, capture_output=True, check=True, text=True
        ).stdout
    assert {"init", "bin/busybox", "dev/console", "guest/boot", "guest/modules/9p.ko"} <= set(listed.split())
    with path.open("rb") as file:
        subprocess.run(["busybox", "cpio", "-id", "guest/*"], stdin=file, capture_output=True, check=True, cwd=tmp_path)
    assert (tmp_path / "guest/modules/order").read_text() == "9pnet\n9p"
