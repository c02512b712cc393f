"""What users of a federation read when something cannot be: one line in plain words, with its errno, also in the file `error` beside the ctl."""

import errno
from collections.abc import Awaitable
from pathlib import Path

import pytest
import trio

from mk9p.errors import NineError
from mk9p.testing import SOON, until
from tests.etcd.cluster import Cluster
from tests.etcd.federated import Composer, composer, kernel, until_sees
from tests.etcd.test_faults import without_quorum
from tests.lease.test_lease_tree import conversation, say


async def refused(one: Composer, work: Awaitable[object], error: str = "") -> tuple[int, str]:
    """Return the errno of what must fail, and its words, which the file `error` has too."""
    with pytest.raises(NineError) as caught:
        await work
    # the client says the path that it asked for behind what the server said
    words = str(caught.value).rpartition(": '")[0] or str(caught.value)
    assert "\n" not in words
    if error:
        assert await one.client.read(error) == f"{words}\n"
    return caught.value.errno, words


async def test_what_cannot_be_is_said_in_one_line_with_its_errno(etcd: Cluster, tmp_path: Path) -> None:
    with trio.fail_after(2 * SOON):
        async with (
            composer(etcd, "a") as a,
            composer(etcd, "b") as b,
            composer(etcd, "c") as c,
            kernel(tmp_path, "k1", a),
            conversation(b.client) as (ctl, n),
        ):
            await until_sees(b, "k1")
            error = f"lease/{n}/error"
            # a path that is not there; a term of nothing, and of a year
            number, words = await refused(b, say(ctl, "take /k/k1/nothing"), error)
            assert (number, words) == (errno.ENOENT, "No such file or directory")
            for term in (0, 31536000):
                said = await refused(b, say(ctl, f"take /k/k1/cpu/0 for {term}"), error)
                assert said == (errno.EINVAL, "a term is 1 to 86400 seconds")
            # a renewal after the end
            await say(ctl, "take /k/k1/cpu/0 for 1")
            await until(lambda: not b.leases.book.leases)
            said = await refused(b, say(ctl, "renew"), error)
            assert said == (errno.ESTALE, "it holds no lease, or none any more: take it again")
            # two kernels of one name: at one composer, of two machines, and in the registry
            async with kernel(tmp_path, "c.k1", c):
                await until_sees(b, "a.k1", "c.k1")
                number, words = await refused(b, b.client.listdir("k/k1"))
                assert number == errno.ENOENT
                assert "k1 is of several machines: a.k1 c.k1" in words
            async with (
                await b.client.open("registry/new", "r+") as one,
                await c.client.open("registry/new", "r+") as two,
            ):
                await say(one, "db port 80")
                number, words = await refused(c, say(two, "db port 81"))
                assert number == errno.EEXIST
                assert words.startswith("db is entered already, by ")
                assert words.endswith(" at b")
            # a lost quorum
            b.store.client.patience = 1.0
            with without_quorum(etcd):
                number, words = await refused(b, say(ctl, "take /k/a.k1/cpu/0"), error)
                assert number == errno.EAGAIN
                assert words.startswith("no quorum: "), words
