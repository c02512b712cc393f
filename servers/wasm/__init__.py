"""Programs on this kernel that can go on on another: WebAssembly modules that see what they were granted, and nothing else.

The manual is docs/files/wasm.md. Here, where others wait for it too: programs.py is the tree, program.py one program and its words, queues.py its
standard streams, keeping.py what it is made of, process.py its child process, container.py the file that a frozen program is.
In a process of its own, as the user whose program it is: loading.py (with instrument/) looks at a module and makes it freezable, runner.py runs it:
machine.py has the engine, wasi/ its calls, space.py the files that were granted, snapshot.py what is frozen. Nothing there waits for trio.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a program's own process imports this package, and must start soon
    from contextlib import AbstractAsyncContextManager

    from mk9p.tree import Dir

__all__ = ["tree"]


def tree(
    *, root: str = "/", namespace: str = "", cache: str = "", programs: str = "256"
) -> "AbstractAsyncContextManager[Dir]":
    """Give the directory of programs. When the caller leaves it, all programs have ended.

    `root` has no effect: programs run on the present kernel. `namespace` is the address whose files are granted, where nobody serves them by
    `N/9p`. `cache` is a directory for what is made of modules ("off": none). `programs` is how many of them one user may have. Raises ENODEV
    where wasmtime is not installed, or not made for this machine.
    """
    from mk9p.servers.wasm.programs import serving

    return serving(namespace=namespace, cache=cache, programs=int(programs))
