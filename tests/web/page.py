"""A namespace and its live page, as a user starts them."""

import http.client
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from mk9p.testing import SOON, child, hear

ME: Final = (sys.executable, "-m", "mk9p")


@attrs.frozen
class Page:
    """A page's URL with the token, the namespace's address, and the process of a kernel's tree that a test may end."""

    url: str
    address: str
    k1: "subprocess.Popen[str]"

    @property
    def base(self) -> str:
        """The URL without the token and the slash before it."""
        return self.url.partition("/?")[0]


@contextmanager
def page(where: Path, *words: str, rules: str = "") -> Iterator[Page]:
    """Serve two kernels' trees (both of this machine), a namespace of them, with rules if there are some, and its page."""
    address = f"unix!{where}/ns"
    (where / "table").write_text(
        f"mount unix!{where}/k0 /k/k0\nmount unix!{where}/k1 /k/k1\nbind /k/k0/cpu /n/processors\n"
    )
    with ExitStack() as stack:

        def start(*command: str, says: str = "listening on") -> "subprocess.Popen[str]":
            return stack.enter_context(child([*ME, *command], says, stderr=subprocess.PIPE))

        start("serve", "-l", f"unix!{where}/k0", "host", "cpu", "mem", "proc", "dev", "dev/block")
        k1 = start("serve", "-l", f"unix!{where}/k1", "host", "cpu", "mem")
        (where / "policy").write_text(rules)
        policy = ["--policy", f"{where}/policy"] if rules else []
        start("compose", "-l", address, "--kernels", f"{where}/kernels", *policy, f"{where}/table")
        served = stack.enter_context(
            child(
                [*ME, "-a", address, "web", "-l", "127.0.0.1:0", *words],
                stdout=subprocess.PIPE,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
            )
        )
        yield Page(hear(served, "http://").strip(), address, k1)


@attrs.define
class Browser:
    """A client that keeps a cookie and the mark of the page, and says what it is told to."""

    page: Page
    cookie: str = ""
    mark: str = ""

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """Ask; `headers` come over the usual ones, with `_` for `-`; an empty one is left out."""
        host = self.page.base.removeprefix("http://")
        usual = {"host": host, "cookie": self.cookie}
        if body is not None:
            usual |= {"origin": self.page.base, "x-mk9p": self.mark, "content-type": "application/json"}
        usual |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection(host, timeout=SOON)
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, {name: value for name, value in usual.items() if value})
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def enter(self) -> None:
        """Come by the URL with the token."""
        status, headers, _ = self.ask("GET", "/?" + self.page.url.partition("?")[2])
        assert (status, headers["location"]) == (303, "/")
        self.cookie = headers["set-cookie"].partition(";")[0]
        status, _, body = self.ask("GET", "/")
        assert status == 200
        self.mark = body.decode().partition('name="mk9p-mark" content="')[2].partition('"')[0]
        assert self.mark
        # the page's feed has a connection only while somebody watches
        self.watch()

    def watch(self) -> None:
        host = self.page.base.removeprefix("http://")
        self._stream = http.client.HTTPConnection(host, timeout=SOON)
        self._stream.request("GET", "/events", headers={"cookie": self.cookie})
        answer = self._stream.getresponse()
        assert answer.getheader("content-type") == "text/event-stream"
        while b"event: kernels" not in answer.readline():
            pass

    def pictures(self, kind: str) -> Iterator[str]:
        """Yield the next data of a kind, as they come."""
        host = self.page.base.removeprefix("http://")
        stream = http.client.HTTPConnection(host, timeout=SOON)
        try:
            stream.request("GET", "/events", headers={"cookie": self.cookie})
            answer, named = stream.getresponse(), ""
            while line := answer.readline().decode().rstrip("\n"):
                key, _, value = line.partition(": ")
                named = value if key == "event" else named
                if key == "data":
                    if named == kind:
                        yield value
                    answer.readline()  # the empty line behind it
        finally:
            stream.close()

    _stream: Any = None

    def leave(self) -> None:
        self._stream.close()
