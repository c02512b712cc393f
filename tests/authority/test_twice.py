"""A server that is mounted twice, under rules that allow something and deny all else: each file has two own names, and a deny of either counts."""

import errno
from pathlib import Path

from tests.authority.test_book import bob, composed, needs_root, refused
from tests.servers.trees import names

HERE, AGAIN = "allow nobody r /k/k1/fs/dir/**\n", "allow nobody r /again/fs/dir/**\n"
REST = "deny nobody rwcnd /**\n"


@needs_root
async def test_who_is_allowed_one_name_of_two_is_denied_by_the_other(tmp_path: Path) -> None:
    async with composed(tmp_path, HERE + REST) as (server, book, _), bob(server) as client:
        for path in ("k/k1/fs/dir/deep", "again/fs/dir/deep"):
            assert await refused(client.read(path)) == errno.EACCES
        await book.write(HERE + AGAIN + REST)
        for path in ("k/k1/fs/dir/deep", "again/fs/dir/deep"):
            assert await client.read(path) == "deep text"
            assert await refused(client.read(path.replace("dir/deep", "f"))) == errno.EACCES


@needs_root
async def test_a_rule_for_one_name_is_enough_where_there_is_one(tmp_path: Path) -> None:
    async with (
        composed(tmp_path, HERE + REST, "unmount /again", "bind /k/k1/fs /n") as (server, _, _),
        bob(server) as client,
    ):
        assert await client.read("k/k1/fs/dir/deep") == "deep text"
        assert await names(client, "k/k1/fs") == ["dir"]
        for path in ("k/k1/fs/f", "n/dir/deep"):
            assert await refused(client.read(path)) == errno.EACCES
