"""How long paths and names may be, wherever they come from: a walk, a mount table, a name to be made."""

from typing import Final

DEPTH: Final = 2048  # names from the root: the longest path of Linux has no more
NAME: Final = 255  # characters of a file's or a user's name: Linux's own most (NAME_MAX, LOGIN_NAME_MAX)
PATH: Final = 4096  # of a path that is written out, and of the tree that an attach names: PATH_MAX
