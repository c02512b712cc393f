"""`mk9p metrics`: what all kernels of a namespace tell of themselves, in Prometheus's text format 0.0.4, with the kernel as a label.

Every figure comes from a file: what stands in `k/NAME/cpu/status` is `mk9p_cpu_load_ratio{kernel="NAME",...}`. What each daemon counts itself
(`k/NAME/stats/prometheus`) is there too, with the same label; the composer's own (`stats/prometheus`) has none. All kernels are asked at once, and
one that does not answer in time has `mk9p_kernel_up` 0 and nothing else.

`-o FILE` replaces a file, for node_exporter's textfile collector. `-l HOST:PORT` answers scrapers by HTTP at /metrics.
"""

import errno
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio

from mk9p.client import Client, connect
from mk9p.clients.common import out, with_namespace
from mk9p.clients.figures import text_of
from mk9p.clients.listing import entries
from mk9p.clients.metric_families import Families
from mk9p.clients.metric_files import kernel
from mk9p.errors import NineError
from mk9p.serving import one_error
from mk9p.usage import parsed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

PATIENCE: Final = 5.0  # seconds for a kernel's answers: an emulated one on a busy machine takes one or two
TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


async def exposition(ns: Client) -> str:
    """Return the whole text. A tree without `k` is that of one kernel. Raises OSError where the namespace itself does not answer."""
    families = Families()
    names = {entry.name for entry in await entries(ns, "/")}
    if "k" not in names:
        status = await text_of(ns, "status") if "status" in names else ""
        found = dict(line.partition(" ")[::2] for line in status.split("\n"))
        places = {found.get("name", "kernel"): ""}
    else:
        places = {entry.name: f"k/{entry.name}/" for entry in await entries(ns, "k")}
        with suppress(FileNotFoundError, PermissionError):
            families.take(await text_of(ns, "stats/prometheus"), {})

    async def one(name: str, at: str) -> None:
        seen = Families()
        up = False
        with trio.move_on_after(PATIENCE), suppress(OSError):
            await kernel(ns, at, {"kernel": name}, seen)
            up = True
        families.gauge("mk9p_kernel_up", "Whether a kernel answers.", {"kernel": name}, int(up))
        if up:
            families.add(seen)

    async with trio.open_nursery() as nursery:
        for name, at in places.items():
            nursery.start_soon(one, name, at)
    return families.text()


def main(arguments: Sequence[str]) -> int:
    """Run `mk9p metrics`."""
    chosen = parsed(arguments)
    if chosen.listen:
        return serve(chosen.listen)

    async def work(ns: Client) -> int:
        text = (await exposition(ns)).encode()
        if chosen.output:
            replace(chosen.output, text)
        else:
            out(text)
        return 0

    return with_namespace(work)


def replace(path: str, text: bytes) -> None:
    """Replace a file, so that who reads it has the old text or the new one, whole."""
    folder, name = os.path.split(os.path.abspath(path))
    descriptor, new = tempfile.mkstemp(dir=folder, prefix=f".{name}.")
    try:
        with open(descriptor, "wb") as file:
            file.write(text)
        os.chmod(new, 0o644)
        os.rename(new, path)
    except BaseException:
        os.unlink(new)
        raise


def serve(where: str) -> int:
    """Answer scrapers until a signal comes. A scrape connects anew, so a namespace may go and come back."""
    try:
        from hypercorn.config import Config
        from hypercorn.trio import serve as serve_http
    except ImportError as error:
        raise NineError(
            errno.ENOENT, f"-l needs hypercorn ({error}): pip install 'mk9p[web]'; or use -o FILE"
        ) from None
    config = Config()
    config.bind = [where]
    config.errorlog = None

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(serve_http, application, config))  # type: ignore[arg-type]
            print(f"mk9p: metrics on http://{where}/metrics", file=sys.stderr, flush=True)

    try:
        one_error(run)
    except OSError as error:
        taken = ": -l 127.0.0.1:0 takes a free one" if error.errno == errno.EADDRINUSE else ""
        number = error.errno if error.errno in errno.errorcode else errno.EINVAL  # a resolver's number is no errno
        raise NineError(number or errno.EINVAL, f"{where}: {error.strerror}{taken}") from None
    return 0


async def application(
    scope: "dict[str, Any]", receive: "Callable[[], Awaitable[Any]]", send: "Callable[[Any], Awaitable[None]]"
) -> None:
    """Answer one request (ASGI). A path that is not /metrics is 404, a namespace that does not answer 503 with its words."""
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    status, body = 404, b"there is only /metrics\n"
    if scope["path"] == "/metrics" and scope["method"] in ("GET", "HEAD"):
        try:
            async with connect() as ns:
                status, body = 200, (await exposition(ns)).encode()
        except OSError as error:
            status, body = 503, f"{error}\n".encode()
    headers = [(b"content-type", TYPE if status == 200 else b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
