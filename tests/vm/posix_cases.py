"""Cases of POSIX on a mounted directory, after pjdfstest's: `python3 -m tests.vm.posix_cases DIR` prints `ok NAME` or `FAIL NAME: what came`.

Run as root; as another user where a case says so. Nothing but the standard library, since it runs in guests.
"""

import os

from tests.vm import posix_changes, posix_contents, posix_groups, posix_names, posix_status

os.umask(0)
for part in (
    posix_names.opening,
    posix_names.removing,
    posix_names.making,
    posix_names.renaming,
    posix_status.status,
    posix_contents.contents,
    posix_contents.attributes,
    posix_contents.locking,
    posix_groups.groups,
    posix_changes.changes,
):
    part()
