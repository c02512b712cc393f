"""WASI preview 1, whole: what a program may ask of its host. Follows wasi_snapshot_preview1.witx.

numbers.py has its numbers, descriptors.py the open files, and then a class for each kind of call: world.py (arguments, clocks, random, the end),
files.py (fd_), paths.py (path_), polling.py. table.py says which calls there are, and of what type.
"""
