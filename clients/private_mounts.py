"""A 9P server as a mount without a place (private.py): by v9fs, or by FUSE.

What such a mount needs is made in the namespaces that this process has before: the line to the server, and the process that serves FUSE or stands
between. So those are not in the new namespace of mounts, and when its last program ends, the mount ends, and they with it.
"""

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs
import trio

from mk9p.client.capability import named, of_mount
from mk9p.clients import private, v9fs
from mk9p.clients.background import in_background
from mk9p.clients.handed import handed
from mk9p.clients.mount import adapted, kernel_has_9p, need_fuse, plan_for
from mk9p.clients.mounts import TYPE
from mk9p.compose.table import Flags
from mk9p.dial import Dial, parse
from mk9p.serving import collect_rarely, one_error

_STDIO: Final = 3


@attrs.define(eq=False)
class Line:
    """A server that can be mounted: `options` for its file system, `begin` when it is mounted, and descriptors to close then."""

    address: str
    kind: str
    options: list[str]
    begin: Callable[[], None] = lambda: None
    fds: set[int] = attrs.field(factory=set)

    def mount(self) -> int:
        """Return the mount. Raises what the kernel says."""
        made = private.filesystem(self.kind, self.options, self.address)
        self.begin()
        for fd in self.fds:
            os.close(fd)
        return made


def line(address: str, spec: str, flags: Flags, *, root: bool) -> Line:
    """Dial a server, so that it can be mounted. `root`: this process is root of its machine. Raises as `dial`, and what says why there is no way."""
    where = parse(address)
    wish = v9fs.Wish(readonly=flags.readonly, wait=flags.wait)
    if spec == "cap!" or (spec.startswith("cap!/") and where.network == "fd"):  # somebody has logged in on this line
        wish = attrs.evolve(wish, aname=spec)
    else:
        aname, cap = named(of_mount(spec))
        wish = attrs.evolve(wish, aname=aname, cap=cap)
    # `-u`: FUSE's client looks at each answer, the kernel's believes them
    by_kernel = root and not flags.untrusted and kernel_has_9p()
    try:
        return _by_kernel(address, wish) if by_kernel else _by_fuse(address, attrs.evolve(wish, cache="mmap"))
    finally:
        _keep(where)


def _keep(where: Dial) -> None:
    """Let no program have the descriptors of a line that this process was given."""
    if where.network == "fd":
        for number in map(int, where.rest.split("!")):
            with suppress(OSError):
                if number >= _STDIO:
                    fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)


def _by_kernel(address: str, wish: v9fs.Wish) -> Line:
    plan = plan_for(address, wish)
    options = list(plan.options)
    fds: set[int] = set()
    if wish.wait or plan.dialled:
        reading, writing = handed(address, wish)
        options[1:1] = [f"rfdno={reading}", f"wfdno={writing}"]
        fds = {fd for fd in (reading, writing) if fd >= _STDIO}
    return Line(address, "9p", [f"source={plan.source}", *options], fds=fds)


def _by_fuse(address: str, wish: v9fs.Wish) -> Line:
    need_fuse()
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    waiting, telling = os.pipe2(os.O_CLOEXEC)

    def work(ready: Callable[[], None]) -> None:
        os.close(telling)
        one_error(lambda: _serve(address, wish, device, waiting, ready))

    where = parse(address)
    try:
        in_background(work, keep=[int(n) for n in where.rest.split("!")] if where.network == "fd" else ())
    except BaseException:
        os.close(telling)
        os.close(device)
        raise
    finally:
        os.close(waiting)
    options = [f"source={address}", f"subtype={TYPE}", f"fd={device}", "rootmode=40000", "allow_other"]
    options += [f"user_id={os.geteuid()}", f"group_id={os.getegid()}", "nosuid", "nodev", *(["ro"] * wish.readonly)]
    return Line(address, "fuse", options, begin=lambda: _tell(telling), fds={device, telling})


def _tell(fd: int) -> None:
    os.write(fd, b".")


async def _serve(address: str, wish: v9fs.Wish, device: int, waiting: int, ready: Callable[[], None]) -> None:
    """Serve FUSE on a device from the moment that it is mounted, until it is mounted nowhere; the device has no requests before, only errors."""
    import pyfuse3

    from mk9p.clients.fuse import IDLE, TASKS

    async with trio.open_nursery() as nursery:
        fuse = await adapted(address, wish, nursery)
        pyfuse3.init(fuse, f"/dev/fd/{device}", set())
        try:
            ready()
            await trio.lowlevel.wait_readable(waiting)
            if os.read(waiting, 1):  # the end: nobody has mounted it
                nursery.start_soon(fuse.interrupts.watch)
                nursery.start_soon(fuse.tidy)
                collect_rarely()
                await pyfuse3.main(min_tasks=IDLE, max_tasks=TASKS)
            nursery.cancel_scope.cancel()
        finally:
            pyfuse3.close()
