"""`mk9p mount [DIAL] DIR` and `mk9p umount DIR`: a tree as a directory of this kernel, by v9fs where the kernel has it, else by FUSE.

FUSE is a process of its own (clients/fuse.py), which ends when it is unmounted, by whatever command, or when it gets SIGTERM. `mk9p umount` finds
it by a socket (clients/fuse_alive.py), whose end shows that the process has ended. If it is killed, its warden unmounts. v9fs never dials again:
when the server was gone, unmount and mount again. FUSE does, and so does the process that holds a v9fs mount with `-w` (clients/kept.py).
"""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from mk9p import ktext
from mk9p.auth import Principal
from mk9p.client.capability import VARIABLE, named, text_of, tree_name
from mk9p.client.client import way_in
from mk9p.clients import v9fs
from mk9p.clients.background import in_background
from mk9p.clients.fuse_alive import Serving, Warden, stay_alive
from mk9p.clients.handed import handed, try_login
from mk9p.clients.mount_options import words
from mk9p.clients.mounts import TYPE, detach, elsewhere, full_path, mounted_at
from mk9p.dial import parse
from mk9p.dial.keys import tell
from mk9p.errors import NineError
from mk9p.itself import BUNDLE
from mk9p.serving import collect_rarely, keys_of, one_error
from mk9p.stdio import complain
from mk9p.usage import parsed

if TYPE_CHECKING:
    from mk9p.clients.fuse import Fuse

PATIENCE: Final = 5.0  # seconds for the server to answer the first time, and each time after dialling again
LEAVING: Final = (
    2.0  # seconds that `umount` waits for the process that served a mount, before it looks why that has not ended
)
INSTALL: Final = "pip install 'mk9p[fuse]'"
INSTALL_BESIDE: Final = "install the Debian package mk9p-fuse; mk9p.pyz takes it from this Python (pip install pyfuse3)"
LOCKS: Final = "with FUSE, locks (flock, fcntl) hold within this mount only, and the server does not know of them; v9fs passes them on"


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p mount` or `mk9p umount`."""
    return umount_main(arguments) if arguments[0] == "umount" else mount_main(arguments)


def mount_main(arguments: Sequence[str]) -> int:
    """Run `mk9p mount`; return when the mount's root gives its status."""
    chosen = parsed(arguments)
    if chosen.options:
        try:
            chosen = parsed([arguments[0], *words(",".join(chosen.options)), *arguments[1:]])
        except ValueError as error:
            raise NineError(errno.EINVAL, str(error)) from None
    tell(keys_of(chosen))
    cap = shown_capability(chosen.cap, default=chosen.dial is None)
    address, aname, _ = way_in(chosen.dial, chosen.aname, None, None)
    chosen.aname, of_context = named(aname)
    cap = cap or of_context
    parse(address)
    directory = mountpoint(chosen.dir)
    by_kernel = chosen.v9fs or (not chosen.fuse and os.geteuid() == 0 and kernel_has_9p())
    cache = chosen.cache or ("none" if by_kernel else "mmap")
    wish = v9fs.Wish(
        chosen.user,
        chosen.aname,
        cache,
        chosen.readonly,
        attributes=chosen.xattr,
        noexec=chosen.noexec,
        msize=chosen.msize,
        cap=cap,
        wait=chosen.wait,
    )
    if wish.wait and parse(address).network == "fd":
        raise NineError(errno.EINVAL, f"{address}: it cannot be dialled again, so there is nothing to wait for (-w)")
    if not by_kernel:
        mount_fuse(address, directory, wish, foreground=chosen.foreground, verbose=chosen.verbose)
        return 0
    if os.geteuid() != 0:
        raise NineError(
            errno.EPERM, "only root can mount with v9fs; without --v9fs it is FUSE, which everybody can use"
        )
    if not kernel_has_9p():
        raise NineError(errno.ENODEV, f"Linux {os.uname().release} has neither 9p nor a module for it: try --fuse")
    mount_v9fs(address, directory, wish, verbose=chosen.verbose)
    return 0


def shown_capability(file: str | None, *, default: bool) -> str:
    """Return the text of the capability to mount with, "" for none. It is in a file, or in $MK9P_CAP for the user's own server."""
    if file is not None:
        return text_of(file if "/" in file else f"./{file}")
    cap = os.environ.get(VARIABLE, "") if default else ""
    return text_of(cap) if cap else ""


def mountpoint(directory: str) -> str:
    """Return the full path of a directory to mount on. Raises ENOENT, ENOTDIR, EBUSY if one of our mounts is there."""
    path = full_path(directory)
    there = mounted_at(path)
    if there is not None and there.ours:
        raise NineError(errno.EBUSY, f"{directory}: {there.source} is mounted there: `mk9p umount {directory}` first")
    if not os.path.exists(path):
        raise NineError(errno.ENOENT, f"{directory}: no such directory: make it first")
    if not os.path.isdir(path):
        raise NineError(errno.ENOTDIR, f"{directory}: not a directory")
    return path


def kernel_has_9p() -> bool:
    """Tell whether this kernel has v9fs; load its modules if necessary."""
    import subprocess

    for module in v9fs.MODULES:  # transports are modules of their own, and not all kernels load them by themselves
        try:
            subprocess.run(["modprobe", "-q", module], check=False, stderr=subprocess.DEVNULL)
        except FileNotFoundError:
            break
    with open("/proc/filesystems", encoding="ascii") as file:
        return any(ktext.split_words(line)[-1:] == ["9p"] for line in file)


# v9fs


def plan_for(address: str, wish: v9fs.Wish) -> v9fs.Plan:
    """Return how this kernel mounts an address, of whose hosts it takes the first that can be dialled. Raises as `v9fs.plan` and dialling."""
    from mk9p.status import user_name

    hosts = v9fs.numeric_hosts(address)
    if len(hosts) > 1:

        async def choose() -> None:
            hosts[:] = [await v9fs.answering(address, hosts, PATIENCE)]

        one_error(choose)
    me, release = user_name(os.geteuid()), os.uname().release
    return v9fs.plan(address, wish, me=me, release=release, numeric=hosts[0] if hosts else None)


def mount_v9fs(address: str, directory: str, wish: v9fs.Wish, *, verbose: bool) -> None:
    """Mount with the kernel's client. Raises NineError with what mount(8) said."""
    plan = plan_for(address, wish)
    fds = handed(address, wish) if wish.wait or plan.dialled else None
    if not plan.dialled:
        one_error(lambda: _try(address))  # the kernel's own words for a missing server tell nothing
    command = ["mount", *plan.arguments(directory, fds)]
    if verbose:
        import shlex

        print(shlex.join(command), file=sys.stderr)
    _command(command, address, pass_fds=fds or ())
    try:
        os.stat(directory)
    except OSError as error:
        detach(directory)
        raise NineError(error.errno or errno.EIO, f"{address}: its root: {error.strerror}") from None
    there = mounted_at(directory)
    for note in v9fs.differences(plan.options, there.options if there else ()):
        print(f"mk9p mount: note: the kernel took {note}", file=sys.stderr)


async def _try(address: str) -> None:
    (await v9fs.dialled(address, PATIENCE)).close()


def _command(command: list[str], about: str, *, pass_fds: Sequence[int] = ()) -> None:
    import subprocess

    try:
        done = subprocess.run(command, stderr=subprocess.PIPE, pass_fds=pass_fds, check=False)
    except FileNotFoundError:
        raise NineError(errno.ENOENT, f"no program {command[0]!r} is installed") from None
    if done.returncode:
        said = ktext.split_lines(ktext.trim(done.stderr.decode(errors="replace")))
        line = next((line for line in said if ":" in line), f"{command[0]} failed with status {done.returncode}")
        number = next((n for n in (errno.EBUSY, errno.EPERM) if os.strerror(n).rpartition(" ")[2] in line), errno.EIO)
        raise NineError(number, f"{about}: {line}")


# FUSE


def need_fuse() -> None:
    """Raise ENODEV, EACCES or ENOENT with what to do, where this user or this Python cannot serve FUSE."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise NineError(errno.ENODEV, "no /dev/fuse: `modprobe fuse`, or use a kernel with FUSE or 9p") from None
    except PermissionError:
        way = "`chmod 666 /dev/fuse`, or be root" if os.geteuid() else "a container needs `--device /dev/fuse`"
        raise NineError(errno.EACCES, f"/dev/fuse is closed to this user: {way}") from None
    except OSError as error:
        raise NineError(errno.ENODEV, f"/dev/fuse is no way to FUSE here: {error.strerror}") from None
    try:
        import mk9p.clients.fuse  # noqa: F401
    except ImportError as error:
        missing = INSTALL_BESIDE if BUNDLE else INSTALL
        raise NineError(errno.ENOENT, f"FUSE needs pyfuse3 ({error}): {missing}") from None


def mount_fuse(address: str, directory: str, wish: v9fs.Wish, *, foreground: bool, verbose: bool) -> None:
    """Mount by FUSE, in this process if `foreground`, else in one of its own."""
    need_fuse()
    if os.geteuid() != 0 and not shutil.which("fusermount3"):
        raise NineError(errno.EPERM, "without root, FUSE needs fusermount3 from Debian's package fuse3")

    def work(ready: Callable[[], None]) -> None:
        one_error(lambda: serve(address, directory, wish, ready, verbose=verbose))

    def tell() -> None:
        print(f"mk9p mount: note: {LOCKS}", file=sys.stderr, flush=True)

    if foreground:
        from mk9p.serving import start_logging

        start_logging(0)
        work(tell)
    else:
        where = parse(address)
        in_background(work, keep=[int(n) for n in where.rest.split("!")] if where.network == "fd" else ())
        tell()


def fuse_options(address: str, wish: v9fs.Wish, *, root: bool) -> set[str]:
    """Return the options of mount.fuse3(8).

    The server checks permissions, because it learns who asks. Where all users are one user to the server, the kernel must check, by the bits. Only
    root admits others.
    """
    source = address.encode("ascii", "replace").decode().replace("\\", "\\\\").replace(",", "\\,")
    options = {f"fsname={source}", f"subtype={TYPE}"}
    if root:
        options.add("allow_other")
        if wish.user:
            options.add("default_permissions")
    if wish.readonly:
        options.add("ro")
    if wish.noexec:
        options.add("noexec")
    return options


async def adapted(address: str, wish: v9fs.Wish, nursery: trio.Nursery) -> "Fuse":
    """Dial a server, and return its tree as what FUSE serves. Raises what dialling and attaching raise."""
    from mk9p.clients.fuse import Fuse
    from mk9p.clients.fuse_asks import eager
    from mk9p.clients.fuse_attributes import FuseWithAttributes
    from mk9p.clients.fuse_common import principal
    from mk9p.compose.remote import Server

    me = Principal.named(wish.user) if wish.user else principal(os.geteuid())
    if wish.cap and parse(address).transport.redial:
        await try_login(address, wish)
    aname = tree_name(wish.aname, wish.cap, default=False)
    server = Server(address, nursery, aname=aname, deadline=PATIENCE, on_change=[eager])
    try:
        await server.root(me)
    except NineError as error:
        raise NineError(error.errno, server.reason if not server.up else f"{address}: {error}") from None
    server.waits(wish.wait)
    made = FuseWithAttributes if wish.attributes else Fuse
    everybody = os.geteuid() == 0 and not wish.user
    return made(server.tree(me), who=None if everybody else me, cache=wish.cache != "none")


async def serve(
    address: str, directory: str, wish: v9fs.Wish, ready: Callable[[], None], *, verbose: bool = False
) -> None:
    """Mount a tree and serve it until it is unmounted, or SIGTERM, SIGINT or SIGHUP; call `ready` after its root has given its status."""
    import pyfuse3

    from mk9p.clients.fuse import IDLE, TASKS

    root = os.geteuid() == 0
    mounted, warden = False, None
    try:
        async with trio.open_nursery() as nursery:
            fuse = await adapted(address, wish, nursery)
            options = fuse_options(address, wish, root=root)
            if verbose:
                print(f"fuse: {','.join(sorted(options))} {directory}", file=sys.stderr)
            try:
                pyfuse3.init(fuse, directory, options)
            except RuntimeError as error:  # libfuse has said more on stderr
                raise NineError(errno.EIO, f"{directory}: {error}") from None
            mounted = True
            warden = Warden(unmounting(directory, lazy=True))

            async def main() -> None:
                await pyfuse3.main(min_tasks=IDLE, max_tasks=TASKS)
                nursery.cancel_scope.cancel()

            async def signals() -> None:
                with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
                    async for _ in received:
                        nursery.cancel_scope.cancel()

            nursery.start_soon(signals)
            nursery.start_soon(main)
            nursery.start_soon(fuse.interrupts.watch)
            nursery.start_soon(fuse.tidy)
            await trio.to_thread.run_sync(os.stat, directory, abandon_on_cancel=True)
            there = mounted_at(directory)
            if there is not None:
                stay_alive(there.device)
                read_ahead(there.device)
            collect_rarely()
            ready()
            await trio.sleep_forever()
    finally:
        if mounted:
            pyfuse3.close()
        if warden is not None:
            warden.dismiss()


def read_ahead(device: str) -> None:
    """Have the kernel read ahead as much of a file as one message holds; it asks for 128 KiB by itself. Only root may."""
    with suppress(OSError), open(f"/sys/class/bdi/{device}/read_ahead_kb", "w", encoding="ascii") as file:
        file.write("1024")


# umount


def umount_main(arguments: Sequence[str]) -> int:
    """Run `mk9p umount`; return when the mount, and the process that served it, are gone."""
    chosen = parsed(arguments)
    umount(full_path(chosen.dir), lazy=chosen.lazy)
    return 0


def umount(path: str, *, lazy: bool = False) -> None:
    """Unmount what `mk9p mount` mounted on a full path. Raises EINVAL if there is none, EBUSY if it is in use.

    `lazy` detaches it, and asks neither the file system nor the process that serves it; it only tells the process to end and waits a moment.
    """
    there = mounted_at(path)
    if there is None or not there.ours:
        raise NineError(errno.EINVAL, f"{path}: nothing of mk9p is mounted there")
    with Serving(there.device if there.type != "9p" else "", there.owner) as process:
        if lazy and os.geteuid() == 0:
            detach(path)
        else:
            _umount(path, lazy=lazy)
        if not process:
            return
        if lazy:
            process.terminate()
        while not process.wait(LEAVING):
            if lazy:
                complain(f"mk9p umount: {path} is detached; process {process.pid}, which served it, has not ended yet")
                return
            # a copy of all mounts, made meanwhile: by unshare(1), for a guest, for a container
            if user := elsewhere(there.device):
                why = f"it is still mounted in the mount namespace of process {user}"
                complain(f"mk9p umount: process {process.pid}, which serves {path}, goes on: {why}")
                return


def _umount(path: str, *, lazy: bool) -> None:
    try:
        _command(unmounting(path, lazy=lazy), path)
    except NineError as error:
        if error.errno != errno.EBUSY:
            raise
        raise NineError(errno.EBUSY, f"{path}: in use: `fuser -vm {path}` says by whom; or umount -l") from None


def unmounting(path: str, *, lazy: bool) -> list[str]:
    """Return the command that unmounts a full path."""
    if os.geteuid() == 0:
        return ["umount", "-i", *(["-l"] * lazy), path]
    return ["fusermount3", "-u", *(["-z"] * lazy), path]
