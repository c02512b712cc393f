"""`mk9p`: the one command. A table of subcommands; each is in a module of its own, which is imported when it is needed.

Exit status: 0 done; 1 the answer is no, or there was an error of the tree, whose words are on stderr; 2 wrong use.
"""

import gc
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from mk9p.stdio import abandon, complain, prepare, told
from mk9p.usage import parsed

# subcommand -> its module, whose `main(arguments)` returns the exit status, and its usage
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("mk9p.serving", "[-l DIAL]... [NAME[:ARG][?OPTION=VALUE]...]   serve this kernel's tree"),
    "compose": ("mk9p.composing", "[-l DIAL]... [FILE]   serve the composed namespace"),
    "up": ("mk9p.clients.up", "[FILE]   start kernels and their namespace"),
    "down": ("mk9p.clients.up", "   end what `mk9p up` started, and leave nothing"),
    "demo": ("mk9p.clients.demo", "   up, a short session of file operations, and how to go on"),
    "ls": ("mk9p.clients.files", "[-l] [PATH...]   list directories"),
    "cat": ("mk9p.clients.files", "PATH...   show files, and follow those that wait"),
    "write": ("mk9p.clients.files", "PATH [TEXT...]   write text, or the standard input, into a file"),
    "stat": ("mk9p.clients.files", "PATH...   show what files are"),
    "tree": ("mk9p.clients.files", "[PATH] [-d DEPTH]   list a whole tree"),
    "cp": ("mk9p.clients.files", "SOURCE DESTINATION   copy a file; `:PATH` is in the namespace, others are here"),
    "tail": ("mk9p.clients.files", "[-n LINES] PATH   follow a file of events"),
    "run": ("mk9p.clients.run", "[-nt] KERNEL -- COMMAND [ARG...]   run a command in a kernel"),
    "ps": ("mk9p.clients.ps", "[KERNEL...]   the processes of all kernels"),
    "top": ("mk9p.clients.top", "[--once] [KERNEL...]   the kernels, their requests, their busiest processes"),
    "console": ("mk9p.clients.console", "KERNEL   attach to a kernel's console"),
    "mount": ("mk9p.clients.mount", "[DIAL] DIR   mount with v9fs, or FUSE where the kernel has none"),
    "umount": ("mk9p.clients.mount", "DIR   unmount"),
    "socks": ("mk9p.clients.socks", "[-l HOST:PORT] KERNEL   a kernel's network as a SOCKS5 proxy on this machine"),
    "trace": ("mk9p.clients.trace", "ADDR [-l DIAL] [--pcap FILE]   show the messages between clients and a server"),
    "help": ("mk9p.clients.help", "[NAME]   the manual: the page of a resource server, or the list of pages"),
    "new-server": ("mk9p.clients.new_server", "NAME [DIR]   make the package of a new resource server"),
    "doctor": (
        "mk9p.clients.doctor",
        "[ADDR|PATH]   find what v9fs stumbles over, in a tree or a mount's options",
    ),
}


def usage() -> str:
    """Return the usage of all subcommands."""
    lines = ["usage: mk9p [-a DIAL] COMMAND ...", ""]
    for name, (_, words) in COMMANDS.items():
        form, _, what = words.partition("   ")
        form = f"{name} {form}"
        lines += [f"  {form:<27} {what}"] if len(form) < 28 else [f"  {form}", f"{'':30}{what}"]
    lines += [
        "",
        "File commands work on the tree of -a, else on that of $MK9P, else on the namespace of `mk9p up`.",
        "`mk9p COMMAND --help` tells a command's options, `mk9p help` what the files are.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    if arguments is None:
        arguments = sys.argv[1:]
        prepare()
    words = list(arguments)
    try:
        try:
            status = run(words)
            print(end="", flush=True)
        except SystemExit:  # from argparse, which has printed something
            print(end="", flush=True)
            raise
    except OSError as error:
        if type(error) is BrokenPipeError:  # an error of this kernel, not of a server: nobody reads the output
            abandon()
            return 128 + 13
        complain(f"mk9p {words[0]}: {told(error)}" if words else f"mk9p: {told(error)}")
        return 1
    except KeyboardInterrupt:
        abandon()
        return 130
    return status


def run(words: list[str]) -> int:
    """Run one subcommand, and remove from `words` what comes before it. Raises OSError, whose words are for the user."""
    address = None
    if words[:1] == ["-a"]:
        if len(words) < 3:
            complain("mk9p: -a wants a dial string and a command: mk9p -a 'unix!/run/mk9p/ns' ls")
            return 2
        address = words[1]
        del words[:2]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"mk9p {version('mk9p')}")
        return 0
    if words[0] not in COMMANDS:
        from difflib import get_close_matches

        near = " ".join(get_close_matches(words[0], COMMANDS))
        hint = f"similar: {near}" if near else "`mk9p --help` lists them"
        complain(f"mk9p: no command {words[0]!r}; {hint}")
        return 2
    if address is not None:
        import os

        os.environ["MK9P"] = address
    parsed(words)  # its help, and what is wrong with its words, want nothing of the command itself
    # What modules make stays. To look through it for garbage takes a twentieth of the time of a short command.
    gc.disable()
    module = import_module(COMMANDS[words[0]][0])
    gc.enable()
    status: int = module.main(words)
    return status


if __name__ == "__main__":
    sys.exit(main())
