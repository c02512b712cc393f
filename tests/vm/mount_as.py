"""Mount as `mk9p mount` does, in another dialect: `python3 -m tests.vm.mount_as VERSION ARGUMENTS...`."""

import sys
from typing import Any

import attrs

from mk9p.clients import mount, v9fs

version, *arguments = sys.argv[1:]
_plan = v9fs.plan


def plan(*args: Any, **more: Any) -> v9fs.Plan:
    ours = _plan(*args, **more)
    return attrs.evolve(
        ours, options=tuple(f"version={version}" if o.startswith("version=") else o for o in ours.options)
    )


v9fs.plan = plan
sys.exit(mount.mount_main(["mount", *arguments]))
