"""One program as files; what they do is in program.py."""

import errno

import attrs

from mk9p.errors import NineError
from mk9p.servers.wasm.program import Program
from mk9p.servers.wasm.queues import Writing
from mk9p.tree import Ctl, Dir, Stream, Text, join
from mk9p.tree.words import Phrase


@attrs.define(eq=False)
class Served(Program):
    """A program with its files (mk9p.tree.Conversation)."""

    def tree(self) -> Dir:
        ctl = Ctl(
            {
                "load": self.load,
                "arg": self.arg,
                "namespace": self.set_namespace,
                "limit": self.limit,
                "start": self.start,
                "freeze": self.freeze,
                "kill": self.kill,
                "closein": self.closein,
                "going": self.going,
                "moved": self.moved,
            },
            self.settings.words,
            mode=0o600,
        )
        for phrase in (
            Phrase("env", self.env, (), "env K=V..."),
            Phrase("grant", self.grant, (), "grant PATH [AT] ro|rw"),
            Phrase("checkpoint", self.checkpoint, (), "checkpoint every SECONDS to PATH|never"),
        ):
            ctl.words[phrase.name] = phrase
        return Dir(
            {
                "ctl": ctl,
                "module": self.module.file(self.may_write),
                "args": Text(lambda: join(self.settings.args) + "\n", self.set_args, mode=0o600),
                "env": Text(
                    lambda: "".join(f"{k}={v}\n" for k, v in self.settings.env.items()), self.set_env, mode=0o600
                ),
                "stdin": Stream(per_open=lambda _: Writing(self.input), mode=0o200),
                "stdout": Stream(per_open=lambda _: self.output, mode=0o400),
                "stderr": Stream(per_open=lambda _: self.errors, mode=0o400),
                "status": Text(self.status),
                "wait": Stream(per_open=lambda _: Wait(self), mode=0o444),
                "state": self.frozen.file(self.may_write),
                "ns": Text(self.settings.ns),
                "9p": Stream(per_open=self.line.open, mode=0o600),
                "events": self.events,
            }
        )


@attrs.define(eq=False)
class Wait:
    """One open `wait`: the line, when the program has ended for good, and the end."""

    program: Program
    given: bool = False

    async def receive(self) -> bytes:
        if self.given:
            return b""
        await self.program.ended.wait()
        self.given = True
        return self.program.told().encode()

    def send(self, data: bytes) -> None:
        raise NineError(errno.EACCES)

    def close(self) -> None:
        """Do nothing."""
