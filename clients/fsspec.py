"""9P for synchronous Python: an fsspec file system, so `fsspec.open`, pandas and similar libraries read and write a tree by its URL.

    9p://HOST[:PORT]/PATH            over TCP, port 564 if left out
    9p+unix://%2Frun%2Fmk9p%2Fns/PATH    over a unix socket, whose path is percent-encoded
    9p:///PATH                       in the namespace of `mk9p up` ($MK9P), or in `address=`, any dial string

* `p9://` and `p9+unix://` are the same. A URL's scheme begins with a letter (RFC 3986), and pandas takes anything else for a path of this machine.
* A file that has a length is stored: it is read in blocks, through fsspec's caches. A file of length 0 is synthetic: it is read whole when it is
  opened, and of a stream that is what it has to say first.
* What the caller writes goes out at `flush` and `close`, or when a block is full. So the lines that are printed into a ctl are one write, as with
  `echo`.
* Errors are the OSError classes that a local tree would raise, with the path; an error of a ctl has the words of the `error` beside it.
* Listings are not cached: the trees change by themselves. The next call dials a lost connection again; its open files are lost.
* Symbolic links are followed within the tree; `islink` in `info` and `ls` says where one was. A link to a directory is "link" to `ls`, and no
  "directory", so a walk over everything ends; so is a link that leads nowhere. Operations that remove or move a name do that to the link.
* `.` and `..` in a path are removed by its text, as in a URL, and lead nowhere above the root.
* There are no transactions. An open file for reading can be pickled, and is opened again where it is unpickled.
"""

import errno
import io
import os
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, unquote, urlsplit

import trio
from fsspec.callbacks import DEFAULT_CALLBACK, Callback  # type: ignore[import-untyped]
from fsspec.spec import AbstractFileSystem  # type: ignore[import-untyped]
from fsspec.utils import isfilelike, stringify_path  # type: ignore[import-untyped]

from mk9p.client import Client, connect
from mk9p.clients import copying
from mk9p.clients.copying import about
from mk9p.clients.fsspec_calls import (
    apart,
    described,
    followed,
    join,
    listed,
    made,
    moment,
    moved,
    named,
    opened,
    opened_to_write,
    part,
    removed,
    replaced,
    there,
    touched,
)
from mk9p.clients.fsspec_files import BLOCK, NineFile, RawFile
from mk9p.clients.links import normal
from mk9p.clients.portal import Portal, portal
from mk9p.dial import parse
from mk9p.errors import NineError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["NineFileSystem"]


def _asked(path: str | None, asked: "Sequence[str]") -> str | None:
    """Return which of the paths that a user gave an error is about: the one that it names, or one below that, else the first."""
    if path is not None and path not in asked:
        names = path.strip("/")
        asked = [each for each in asked if f"{each.strip('/')}/".startswith(f"{names}/")] or asked
        path = None
    return path or next(iter(asked), None)


class NineFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """A 9P server's tree. `address` is a dial string, by default `$MK9P` or the namespace of `mk9p up`; the rest is as for `mk9p.connect`.

    With `auto_mkdir` whatever writes a file also makes the directories above it, as fsspec's local file system does with the same option.
    """

    protocol: ClassVar[tuple[str, ...]] = ("9p", "9p+unix", "p9", "p9+unix")
    root_marker = "/"

    def __init__(
        self,
        address: str | None = None,
        uname: str | None = None,
        aname: str = "",
        cap: str | None = None,
        version: str = "9P2000.L",
        auto_mkdir: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.address, self.auto_mkdir = address, auto_mkdir
        self._attach = {"uname": uname, "aname": aname, "cap": cap, "version": version}
        self._portal: Portal | None = None
        self._client: Client | None = None

    # The connection

    def _call(self, work: "Callable[..., Awaitable[Any]]", *args: Any) -> Any:
        """Run `work(client, *args)` in the loop, on a live connection; an error names the path that it is about, the first in `args`."""

        async def run() -> Any:
            client = await self._connected()
            try:
                return await work(client, *args)
            except NineError as error:
                error.filename = _asked(error.filename, [each for each in args if isinstance(each, str)])
                raise error from None

        return self._door().call(run)

    def _door(self) -> Portal:
        mine = portal()
        if mine is not self._portal:  # the first call, or the first in a child of fork(2)
            self._portal, self._client = mine, None
            self._dialling = trio.Lock()
        return mine

    async def _connected(self) -> Client:
        async with self._dialling:
            if self._client is None or self._client.connection.gone is not None:
                assert self._portal is not None
                self._client = await self._portal.keep(self._keep)
            return self._client

    async def _keep(self, task_status: "trio.TaskStatus[Client]") -> None:
        async with connect(self.address, **self._attach) as client:  # type: ignore[arg-type]
            task_status.started(client)
            await client.wait_closed()

    def close(self) -> None:
        """Close the connection, and with it all open files; a later call dials again."""

        async def end(client: Client) -> None:
            client.connection.end("it was closed here")

        if self._client is not None and self._client.connection.gone is None:
            self._call(end)

    # URLs

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        if isinstance(path, list):
            return [cls._strip_protocol(each) for each in path]
        scheme, mark, rest = stringify_path(path).partition("://")
        rest = rest.partition("/")[2] if mark and scheme in cls.protocol else scheme + mark + rest
        return normal(rest)

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        scheme, mark, rest = path.partition("://")
        place = rest.partition("/")[0] if mark else ""
        if not place:
            return {}
        if scheme.endswith("+unix"):
            return {"address": f"unix!{unquote(place)}"}
        where = urlsplit(f"//{place}")
        address = {"address": f"tcp!{where.hostname}!{where.port or 564}"}
        return address if where.username is None else address | {"uname": where.username}

    def unstrip_protocol(self, name: str) -> str:
        """Return the URL of a path; leave out the host of an address that is neither tcp nor unix."""
        path = self._strip_protocol(name)
        where = parse(self.address) if self.address else None
        if where is not None and where.network == "unix":
            return f"9p+unix://{quote(where.rest, safe='')}{path}"
        if where is None or where.network != "tcp" or where.netns is not None:
            return f"9p://{path}"
        host, port = where.host_port()
        return f"9p://{f'[{host}]' if ':' in host else host}:{port}{path}"

    # Status

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return what is known of a file: name, size in bytes, type, mode, owner, times in seconds. For a link these are of the file that it leads
        to, with `islink`."""
        path = self._strip_protocol(path)
        stat, link = self._call(followed, path)
        return described(path, stat, link)

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        """Return the entries of a directory, or the file itself: their paths, or with `detail` what `info` says of each."""
        path = self._strip_protocol(path)
        if not detail:
            names: list[str] = self._call(named, path)
            return sorted(join(path, name) for name in names)
        return self._call(listed, path)  # type: ignore[no-any-return]

    def exists(self, path: str, **_: Any) -> bool:
        """Tell whether a path leads somewhere. Raises OSError when it cannot find out."""
        found: bool = self._call(there, self._strip_protocol(path))
        return found

    def created(self, path: str) -> datetime:
        """Return when the status of a file changed last: 9P tells no earlier time."""
        return moment(self.info(path)["created"])

    def modified(self, path: str) -> datetime:
        """Return when a file was written last; synthetic files have no such time except 1970. A time outside the years 1 to 9999 becomes the
        nearest one inside."""
        return moment(self.info(path)["mtime"])

    # Content

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: dict[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        if not autocommit:
            raise NotImplementedError("9P has no transactions")
        if mode == "rb":
            file, stat = self._call(opened, path)
            size = options.pop("size", None)  # from a pickled file, or as the caller knows it
            if stat.length:
                return NineFile(
                    self, path, file, block_size or "default", size or stat.length, cache_options, **options
                )
            with RawFile(self, path, file, mode) as made_up:
                return io.BytesIO(made_up.readall())
        self._make_room(path)
        raw = RawFile(self, path, self._call(opened_to_write, path, mode), mode)
        return (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw, block_size or BLOCK)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the content of a file, or from `start` to before `end`; negative numbers count from its end."""
        data: bytes = self._call(part, self._strip_protocol(path), start, end)
        return data

    def pipe_file(self, path: str, value: Any, mode: str = "overwrite", **_: Any) -> None:
        """Write a whole file at once; `mode` "create" raises FileExistsError if it exists."""
        path = self._strip_protocol(path)
        if mode == "create":
            with self.open(path, "xb") as file:
                file.write(value)
        else:
            self._make_room(path)
            self._call(replaced, path, value)

    def get_file(
        self, rpath: str, lpath: Any, callback: Callback = DEFAULT_CALLBACK, outfile: Any = None, **options: Any
    ) -> None:
        """Copy a file to this machine, or make a directory for a directory. Raises EINVAL if the two turn out to be the same file."""
        if outfile is not None or isfilelike(lpath):
            super().get_file(rpath, lpath, callback=callback, outfile=outfile, **options)
        elif self.isdir(rpath):
            os.makedirs(lpath, exist_ok=True)
        else:
            os.makedirs(os.path.dirname(os.path.abspath(lpath)), exist_ok=True)
            self._call(copying.out_of, self._strip_protocol(rpath), os.fspath(lpath))
            _told(callback, os.path.getsize(lpath))

    def put_file(
        self, lpath: Any, rpath: str, callback: Callback = DEFAULT_CALLBACK, mode: str = "overwrite", **options: Any
    ) -> None:
        """Copy a file of this machine, or make a directory for a directory. Raises EINVAL if the two turn out to be the same file."""
        path = self._strip_protocol(rpath)
        if mode == "create" and self.exists(path):
            raise about(path, NineError(errno.EEXIST))
        if os.path.isdir(lpath):
            self.makedirs(path, exist_ok=True)
        else:
            self.makedirs(self._parent(path), exist_ok=True)
            self._call(copying.into, os.fspath(lpath), path)
            _told(callback, os.path.getsize(lpath))

    def touch(self, path: str, truncate: bool = True, **_: Any) -> None:
        """Make a file if it does not exist, and empty an existing one; without `truncate` give that the present time."""
        path = self._strip_protocol(path)
        if truncate or not self.exists(path):
            self.open(path, "wb").close()
        else:
            self._call(touched, path)

    def _make_room(self, path: str) -> None:
        """Make the directories above a file that is written, if the user of this file system asked for that."""
        if self.auto_mkdir:
            self.makedirs(self._parent(path), exist_ok=True)

    # Names

    def mkdir(self, path: str, create_parents: bool = True, **_: Any) -> None:
        """Make a directory, and those above it."""
        path = self._strip_protocol(path)
        if create_parents and not self.exists(self._parent(path)):
            self.makedirs(self._parent(path), exist_ok=True)
        self._call(made, path)

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a directory and those above it."""
        path = self._strip_protocol(path)
        if exist_ok and self.isdir(path):
            return
        try:
            self.mkdir(path)
        except FileExistsError:  # somebody else was quicker, such as another thread that writes the same data set
            if not exist_ok or not self.isdir(path):
                raise

    def rmdir(self, path: str) -> None:
        """Remove an empty directory."""
        self._call(removed, self._strip_protocol(path), True)

    def rm_file(self, path: str) -> None:
        """Remove a file."""
        self._call(removed, self._strip_protocol(path), False)

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, and with `recursive` directories and everything in them."""
        for each in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            self._call(removed, each, None if recursive else False)

    def mv(self, path1: str, path2: str, recursive: bool = False, maxdepth: int | None = None, **options: Any) -> None:
        """Give a file another path, or put it into an existing directory; where the server cannot do that, copy it and remove it."""
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        if old == new:
            return
        if self.isdir(new):
            new = join(new, old.rpartition("/")[2])
        try:
            self._call(moved, old, new)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            recursive = recursive or self.isdir(old)
            if recursive:
                self._call(apart, old, new)
            self.copy(old, new, recursive=recursive, maxdepth=maxdepth, on_error="raise", **options)
            self.rm(old, recursive=recursive)

    def copy(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        on_error: str | None = None,
        **options: Any,
    ) -> None:
        """Copy files, and with `recursive` directories. Raises EINVAL, before it begins, for a directory that would be copied into itself."""
        if recursive and isinstance(path2, str):
            for path in [path1] if isinstance(path1, str) else path1:
                if self.isdir(path):
                    self._call(apart, self._strip_protocol(path), self._strip_protocol(path2))
        super().copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error=on_error, **options)

    def cp_file(self, path1: str, path2: str, **_: Any) -> None:
        """Copy a file, or make a directory for a directory. Raises EINVAL for one that would be copied onto itself, or into itself."""
        old, new = self._strip_protocol(path1), self._strip_protocol(path2)
        if self.isdir(old):
            self._call(apart, old, new)
            self.makedirs(new, exist_ok=True)
        else:
            self._make_room(new)
            self._call(copying.within, old, new)


def _told(callback: Callback, size: int) -> None:
    callback.set_size(size)
    callback.relative_update(size)
