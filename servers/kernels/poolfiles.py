"""The files of what moves: `pool/`, `tx/`, and the words `move`, `cpu`, `mem`, `dev`."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Literal

import attrs

from mk9p.affinity import listed
from mk9p.errors import NineError
from mk9p.tree import Ctl, Dir, Lazy, Text, fields, join

from .moves import POOL, parsed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mk9p.auth import Principal
    from mk9p.tree import Maybe

    from .backend import Ground
    from .moves import Moves
    from .tx import Step, Transactions

Kind = Literal["cpu", "mem", "dev"]
Do = Literal["add", "del"]


@attrs.frozen
class PoolFiles:
    """pool/: what is in no kernel."""

    moves: Moves

    def tree(self) -> Dir:
        """Return the directory."""
        ground = self.moves.world.ground
        return Dir(
            {
                "ctl": Ctl({"cpu": self.cpu, "mem": self.mem, "dev": self.dev}, read=self.settings),
                "status": Text(self.status),
                "cpus": Text(lambda: "".join(f"{number}\n" for number in sorted(self.moves.world.pool.cpus))),
                "memory": Text(lambda: f"{self.moves.world.pool.memory}\n"),
                "devices": Text(self.devices),
                **({} if ground is None else {"multikernel": RealPool(self.moves, ground).tree()}),
            }
        )

    async def cpu(self, do: Do, list_: str) -> None:
        await self.moves.pool_word("cpu", do, [list_])

    async def mem(self, do: Do, bytes_: str) -> None:
        await self.moves.pool_word("mem", do, [bytes_])

    async def dev(self, do: Do, name: str, *more: str | None) -> None:
        words = [word for word in more if word is not None]
        if do == "del" and words:
            raise NineError(errno.EINVAL, "usage: dev del NAME")
        await self.moves.pool_word("dev", do, [name, *words])

    def settings(self) -> str:
        """Return the lines that would put into an empty pool what is in this one."""
        pool = self.moves.world.pool
        lines = [["cpu", "add", listed(frozenset(pool.cpus))]] if pool.cpus else []
        lines += [["mem", "add", str(pool.memory)]] if pool.memory else []
        lines += [["dev", "add", *device.words] for device in pool.devices.values()]
        return "".join(join(line) + "\n" for line in lines)

    def status(self) -> str:
        pool = self.moves.world.pool
        return fields(
            {"cpus": listed(frozenset(pool.cpus)), "memory": pool.memory, "devices": " ".join(sorted(pool.devices))}
        )

    def devices(self) -> str:
        return "".join(join(device.words) + "\n" for device in self.moves.world.pool.devices.values())


@attrs.frozen
class RealPool:
    """pool/multikernel/: what is in no kernel of the machine itself."""

    moves: Moves
    ground: Ground

    def tree(self) -> Dir:
        """Return the directory."""
        words = {"baseline": self.baseline, "cpu": self.cpu, "mem": self.mem, "dev": self.dev}
        return Dir({"ctl": Ctl(words), "status": Text(self.ground.status)})

    async def baseline(self, list_: str, bytes_: str) -> None:
        cpus, memory = parsed("cpu", list_), parsed("mem", bytes_)
        await self._run(["baseline", list_, bytes_], lambda: self.ground.plan_baseline(cpus, memory))

    async def cpu(self, do: Do, list_: str) -> None:
        given = parsed("cpu", list_)
        await self._run(["cpu", do, list_], lambda: self.ground.plan_pool("cpu", do, given))

    async def mem(self, do: Do, bytes_: str) -> None:
        given = parsed("mem", bytes_)
        await self._run(["mem", do, bytes_], lambda: self.ground.plan_pool("mem", do, given))

    async def dev(self, do: Do, device: str, alias: str = "") -> None:
        await self._run(["dev", do, device, alias], lambda: self.ground.plan_pool("dev", do, device, alias))

    async def _run(self, words: list[str], plan: Callable[[], Awaitable[list[Step]]]) -> None:
        await self.moves.txs.run(" ".join(["multikernel", *words]).rstrip(" "), plan)


@attrs.frozen
class KernelWords:
    """The words of NAME/ctl that move something between the pool and the kernel."""

    moves: Moves
    name: str

    def table(self) -> dict[str, Callable[..., object]]:
        """Return the words."""
        return {"cpu": self.cpu, "mem": self.mem, "dev": self.dev}

    async def cpu(self, do: Do, list_: str) -> None:
        await self._move("cpu", do, list_)

    async def mem(self, do: Do, bytes_: str) -> None:
        await self._move("mem", do, bytes_)

    async def dev(self, do: Do, name: str) -> None:
        await self._move("dev", do, name)

    async def _move(self, kind: Kind, do: Do, what: str) -> None:
        source, target = (POOL, self.name) if do == "add" else (self.name, POOL)
        await self.moves.move(kind, what, source, target)


def txs_dir(txs: Transactions) -> Dir:
    """Return tx/: a directory for each transaction; removing it undoes the transaction, or forgets one that is undone."""
    return _Txs(txs)


class _Txs(Dir):
    def __init__(self, txs: Transactions) -> None:
        super().__init__(Lazy(lambda: [str(number) for number in txs.txs], self._one, key=self._key), mode=0o755)
        self.txs = txs

    def _key(self, name: str) -> object:
        return self.txs.txs.get(int(name)) if name.isascii() and name.isdigit() and len(name) < 16 else None

    def _one(self, name: str) -> Dir:
        tx = self.txs.txs[int(name)]

        def status() -> str:
            return fields(
                {
                    "state": tx.state,
                    "what": tx.what,
                    "steps": len(tx.steps),
                    "done": tx.done,
                    "began": tx.began,
                    "took": tx.ended - tx.began if tx.ended else 0,
                }
            )

        return Dir({"status": Text(status), "error": Text(lambda: tx.error + "\n" if tx.error else "")})

    def remove(self, name: str, who: Principal, *, directory: bool | None = None) -> Maybe[None]:
        if self._key(name) is None:
            raise NineError(errno.ENOENT)
        if directory is False:
            raise NineError(errno.EISDIR)
        return self.txs.undo(int(name))
