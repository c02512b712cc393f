"""A stand-in for /sys/fs/multikernel, and the programs that are tried at it: kerf's own command line, and mk9p.

model.py    what that kernel would have: the pool, instances, transactions
trees.py    the device trees that it gives
overlays.py the changes that it takes, and what it refuses
emulator.py the files, as a 9P tree: `python -m tests.kernels.multikernel.emulator DIAL`
shim.c      (LD_PRELOAD) the system calls that become writes to `.syscall` of those files
place.sh    a namespace of mounts in which all that is at its place
"""
