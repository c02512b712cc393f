"""How a checkpoint is written to the namespace of a program, by the program's own process: as a whole or not at all."""

import errno
import os
from contextlib import suppress
from typing import Final

from mk9p import sync
from mk9p.errors import NineError
from mk9p.servers.wasm.wasi.descriptors import CANNOT_SYNC, Opened, Table

PART: Final = ".part"  # what the name of a checkpoint ends with while it is being written
_PIECE: Final = 1 << 20


class Writer:
    """Writes the checkpoints of one run to a path; `fd` is the file in memory where each comes from.

    What a checkpoint says must have been stored before it: so the program's files are synced first. A file tells once that this failed, so there
    are no more checkpoints after that: the last one is still right.
    """

    def __init__(self, client: sync.Client, table: Table, path: str, fd: int) -> None:
        self.client, self.table, self.path, self.fd = client, table, path, fd
        self.lost: NineError | None = None

    def look(self) -> None:
        """Raise ENOTDIR, or what the server says, where there is no directory for it."""
        above = self.path.rpartition("/")[0]
        try:
            if not self.client.stat(above).is_dir:
                raise NineError(errno.ENOTDIR)
        except NineError as error:
            raise NineError(error.errno, f"checkpoint {self.path}: {error.strerror}") from None

    def write(self) -> None:
        """Write one. Raises what the server says; then the one before is as it was. Raises mk9p.sync.Stopped if it is not to wait."""
        if self.lost is not None:
            raise self.lost
        self._sync()
        part = self.path + PART
        try:
            with self.client.open(part, "w") as file:
                for at in range(0, os.fstat(self.fd).st_size, _PIECE):
                    file.write(os.pread(self.fd, _PIECE, at))
                file.sync()
            self.client.rename(part, self.path)
        except sync.Stopped:
            raise
        except OSError as error:
            with suppress(OSError):
                self.client.unlink(part, directory=False)
            raise NineError(error.errno or errno.EIO, f"checkpoint {self.path}: {error.strerror}") from None

    def _sync(self) -> None:
        for each in list(self.table.open.values()):
            if not isinstance(each, Opened) or each.file is None or not each.write_ or not each.stored:
                continue
            try:
                each.file.sync()
            except sync.Stopped:
                raise
            except OSError as error:
                if error.errno not in CANNOT_SYNC:
                    name = "/".join([each.place.grant.at.rstrip("/"), *each.place.names])
                    self.lost = NineError(
                        error.errno or errno.EIO, f"{name}: what was written is lost: {error.strerror}"
                    )
                    raise self.lost from None
