"""The ends of a kernel: `halt`, `reboot`, `panic`.

Where systemd is process 1 (sd_booted(3)), halt and reboot are its jobs, so services stop as they want to. Anywhere else, as in a guest without an
init system, the server syncs file systems, and reboot(2) ends the kernel at once; in a PID namespace of its own it ends that namespace. `panic` is
sysrq `c`: it syncs nothing and asks nobody. An answer may never reach the writer: the end of the connection is the sign of success.

Below a made-up root all three only write the sysrq letter for it (Documentation/admin-guide/sysrq.rst) to the root's proc/sysrq-trigger.
"""

import errno
import os

import attrs
import trio

from mk9p.errors import NineError
from mk9p.ktext import trim

_REBOOT = 0x01234567  # LINUX_REBOOT_CMD_RESTART
_POWER_OFF = 0x4321FEDC  # LINUX_REBOOT_CMD_POWER_OFF
SYNC_SECONDS = 10  # a network file system whose server is gone would hold sync(2), and with it the halt, for ever


@attrs.frozen
class Power:
    """End the kernel whose /proc is below `root`; `real` says that this server runs on it."""

    root: str
    real: bool = attrs.field(kw_only=True)

    async def reboot(self) -> None:
        """Start the kernel anew; raises EPERM without CAP_SYS_BOOT."""
        await self._end("b", "reboot", _REBOOT)

    async def halt(self) -> None:
        """Power off; raises EPERM without CAP_SYS_BOOT."""
        await self._end("o", "poweroff", _POWER_OFF)

    def panic(self) -> None:
        """Crash the kernel; raises ENOENT where it was built without sysrq."""
        self._sysrq("c")

    async def _end(self, letter: str, job: str, command: int) -> None:
        if not self.real:
            self._sysrq(letter)
        elif booted_by_systemd():
            await _systemctl(job)
        else:
            with trio.move_on_after(SYNC_SECONDS):
                await trio.to_thread.run_sync(os.sync, abandon_on_cancel=True)
            _reboot(command)

    def _sysrq(self, letter: str) -> None:
        try:
            fd = os.open(os.path.join(self.root, "proc/sysrq-trigger"), os.O_WRONLY)
        except FileNotFoundError:
            raise NineError(errno.ENOENT, "this kernel has no sysrq-trigger") from None
        try:
            os.write(fd, letter.encode())
        finally:
            os.close(fd)


def booted_by_systemd() -> bool:
    """Tell whether systemd is process 1, as sd_booted(3) does."""
    return os.path.isdir("/run/systemd/system")


async def _systemctl(job: str) -> None:
    done = await trio.run_process(["systemctl", job], check=False, capture_stdout=True, capture_stderr=True)
    if done.returncode:
        raise NineError(errno.EIO, trim(done.stderr.decode(errors="replace")) or f"systemctl {job} failed")


def _reboot(command: int) -> None:
    import ctypes  # large, and needed once in a kernel's life

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.reboot(ctypes.c_uint(command)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
