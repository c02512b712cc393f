"""Kernels beside this one on the same machine: Linux multikernel, by /sys/fs/multikernel and kerf's library (the extra `multikernel`).

    door.py       what that file system and /proc/iomem say, checked once; and what is written there
    calls.py      the system calls
    ground.py     what moves between instances, the pool and this machine: the words of transactions
    instance.py   the backend, and an instance that runs

All that kerf 0.4.0 does was tried at an emulator; none of it on that kernel.
"""

from .instance import Multikernel

__all__ = ["Multikernel"]
