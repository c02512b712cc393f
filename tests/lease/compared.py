"""Keys compared one with the other: what the tree of names (mk9p/lease/near.py) must find."""

from mk9p.lease.wish import Key, Wish


def overlap(one: Key, other: Key) -> bool:
    """Tell whether one resource is the other, or lies below it."""
    return one[: len(other)] == other[: len(one)]


def in_the_way(one: Wish, other: Wish) -> bool:
    """Tell whether two cannot be had at the same time."""
    both = ((mine.key, its.key) for mine in one.resources for its in other.resources)
    return "exclusive" in (one.mode, other.mode) and any(overlap(mine, its) for mine, its in both)


def reaches(lease: Key, key: Key) -> bool:
    """Tell whether a lease covers a file: what is leased, what is below it, and the ctl beside it."""
    if key[: len(lease)] == lease:
        return True
    return len(key) == len(lease) and key[:-1] == lease[:-1] and key[-1] in ("ctl", f"{lease[-1]}ctl")
