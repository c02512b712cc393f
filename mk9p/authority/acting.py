"""What is opened in a tree as another principal than the one who asks."""

import attrs

from mk9p.auth import Principal
from mk9p.tree import Handle, Maybe, Node, Open


def opened_as(how: Open, acts: Principal) -> Open:
    """Return how a file is opened as another principal, with the group that new files get."""
    who = acts if how.who.gid is None else attrs.evolve(acts, gid=how.who.gid)
    return Open(
        who,
        how.read,
        how.write,
        how.truncate,
        how.append,
        how.execute,
        how.remove,
        how.records,
        how.flags,
        how.room,
    )


class Directory(Handle):
    """An open directory whose node has no handle."""

    prompt = True

    def __init__(self, node: Node, who: Principal) -> None:
        self.node, self.who = node, who

    def sync(self, *, data: bool = False) -> Maybe[None]:
        return self.node.sync(self.who, data=data)
