"""How long paths and names may be, wherever they come from: a walk, a mount table, a new name."""

from typing import Final

DEPTH: Final = 2048  # names below the root: the longest path of Linux has no more
NAME: Final = 255  # characters of a file's or a user's name: the limits of Linux (NAME_MAX, LOGIN_NAME_MAX)
PATH: Final = 4096  # of a path that is written out, and of the tree name in an attach: PATH_MAX
