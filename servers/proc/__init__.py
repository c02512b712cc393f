"""The processes of this kernel as directories, after Plan 9's proc(3).

`N/{args ctl cwd environ exe fd maps mem note ns status wait}`; the manual is docs/files/proc.md. procfs.py identifies a process and its user,
texts.py has the text of its files, control.py acts on it, ending.py waits for its end, and process.py puts them together.
"""

import os

from mk9p.servers.proc.process import Process
from mk9p.servers.proc.procfs import Procfs
from mk9p.tree import Dir, Lazy


def tree(*, root: str = "/") -> Dir:
    """Return the directory of all processes in `{root}/proc`, which come and go; a number that is used again is a new node."""
    procfs = Procfs(os.path.join(root, "proc"))

    def make(name: str) -> Process:
        try:
            return Process(procfs.pid(int(name)))
        except ProcessLookupError:  # it ended after it was listed
            raise KeyError(name) from None

    return Dir(Lazy(procfs.names, make, key=procfs.start))
