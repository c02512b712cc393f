"""The kernel's uevents: as Linux 6.1 sends them, and from the kernel that the tests run on."""

import os

import pytest
import trio

from mk9p import uevents
from mk9p.sysfs import put

NULL = "/devices/virtual/mem/null"


def message(action: str, path: str, *more: str) -> bytes:
    """A uevent as Linux 6.1 sends it."""
    strings = [f"{action}@{path}", f"ACTION={action}", f"DEVPATH={path}", "SUBSYSTEM=cpu", *more, "SEQNUM=1790"]
    return "".join(f"{s}\0" for s in strings).encode()


def test_a_message_is_taken_apart() -> None:
    found = uevents.parse(message("offline", "/devices/system/cpu/cpu11", "DRIVER=processor"))
    assert found is not None
    assert (found.action, found.path, found.name, found.subsystem) == (
        "offline",
        "/devices/system/cpu/cpu11",
        "cpu11",
        "cpu",
    )
    assert found.values["DRIVER"] == "processor"


def test_what_tells_of_no_change_is_passed_over() -> None:
    assert uevents.parse(message("online", "/devices/system/cpu/cpu1", "SYNTH_UUID=0")) is None  # only asked for again
    assert uevents.parse(b"libudev\0\xfe\xed\xca\xfe") is None


async def test_the_kernels_uevents_arrive() -> None:
    """Ask the kernel to tell again of /dev/null, as `udevadm trigger` does of all devices at every boot: it changes nothing."""
    trigger = f"/sys{NULL}/uevent"
    if not os.access(trigger, os.W_OK):
        pytest.skip("no root, or sysfs is read-only")
    sock = uevents.listen()
    if sock is None:
        pytest.skip("this kernel gives no uevents here")
    with sock:
        put(trigger, "change")
        with trio.fail_after(10):
            said = b""
            while not said.startswith(f"change@{NULL}\0".encode()):
                await trio.lowlevel.wait_readable(sock)
                said, (sender, _) = sock.recvfrom(8192)
                assert sender == 0  # the kernel
        assert uevents.parse(said) is None
