"""What every tree must do, of every resource server that is installed."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from every_tree import BUT, SERVERS, make

from mk9p.auth import Principal
from mk9p.errors import NineError
from mk9p.testing import check_tree
from mk9p.tree import Ctl, Dir, Handle, Lazy, Log, Node, Open, Stream, Text


@pytest.mark.parametrize("name", SERVERS)
async def test_a_tree_is_as_every_tree(name: str, tmp_path: Path) -> None:
    tree = make(name, tmp_path)
    try:
        seen = await check_tree(tree, but=BUT.get(name, ()))
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENOENT, errno.EPERM, errno.ENOSYS):
            raise
        pytest.skip(f"this kernel has no {name}: {error}")
    assert seen
