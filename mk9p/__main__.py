"""`mk9p`: the one command. A table of subcommands; each is in a module of its own, which is imported when it is needed.

Exit status: 0 done; 1 the answer is no, or there was an error of the tree, whose words are on stderr; 2 wrong use.
"""

import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

from mk9p.stdio import abandon, complain, prepare, told
from mk9p.usage import ALIASES, GLOBAL, parsed, tell

# subcommand -> its module, whose `main(arguments)` returns the exit status, and its usage
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("mk9p.serving", "[-l DIAL]... [NAME[:ARG][?OPTION=VALUE]...]   serve this kernel's tree"),
    "compose": ("mk9p.composing", "[-l DIAL]... [FILE]   serve the composed namespace"),
    "up": ("mk9p.clients.up", "[FILE]   start kernels and their namespace"),
    "down": ("mk9p.clients.up", "   end what `mk9p up` started, and leave nothing"),
    "apply": (
        "mk9p.clients.apply",
        "[--dry-run] [--restart] FILE   make of the kernels what a lab file says, and keep it so",
    ),
    "diff": ("mk9p.clients.apply", "FILE   show what differs from a lab file, as words"),
    "demo": ("mk9p.clients.demo", "   up, a short session of file operations, and how to go on"),
    "ls": ("mk9p.clients.files", "[-l] [PATH...]   list directories"),
    "cat": ("mk9p.clients.files", "PATH...   show files, and follow those that wait"),
    "write": ("mk9p.clients.files", "PATH [TEXT...]   write text, or the standard input, into a file"),
    "stat": ("mk9p.clients.files", "PATH...   show what files are"),
    "tree": ("mk9p.clients.files", "[PATH] [-d DEPTH]   list a whole tree"),
    "cp": (
        "mk9p.clients.files",
        "[-r] SOURCE... DESTINATION   copy files; `:PATH` is in the namespace, others are here",
    ),
    "tail": ("mk9p.clients.files", "[-n LINES] PATH   follow a file of events"),
    "find": ("mk9p.clients.find", "[PATH...] [-name PATTERN] [-type d|f|l]   list the paths below directories"),
    "edit": ("mk9p.clients.edit", "PATH   change a file with your editor"),
    "wait": ("mk9p.clients.until", "[-t SECONDS] KERNEL|PATH WORD...   wait for a state, or for a word in a file"),
    "logs": ("mk9p.clients.logs", "[-f] [KERNEL...]   the logs of kernels, in order of time"),
    "events": ("mk9p.clients.logs", "[-f] [PATH...]   what happened, in order of time"),
    "explain": ("mk9p.clients.explain", "PATH   what the manual says of a file"),
    "run": ("mk9p.clients.run", "[-nt] KERNEL -- COMMAND [ARG...]   run a command in a kernel"),
    "cpu": (
        "mk9p.clients.cpu",
        "[-nt] KERNEL [-- COMMAND [ARG...]]   a command in a kernel with your namespace at /mnt/term",
    ),
    "newns": ("mk9p.clients.newns", "[-np] FILE [-- COMMAND [ARG...]]   a command in a namespace of its own"),
    "export": ("mk9p.clients.export", "[-P PATTERNS] DIR DIAL   serve a directory of this machine, or a part of it"),
    "tf": ("mk9p.clients.tf", "run FILE   run a graph of tasks over kernels"),
    "wasm": ("mk9p.clients.wasm", "run|ps|move|save|show ...   programs that go on on another kernel"),
    "ps": ("mk9p.clients.ps", "[KERNEL...]   the processes of all kernels"),
    "top": ("mk9p.clients.top", "[--once] [KERNEL...]   the kernels, their requests, their busiest processes"),
    "console": ("mk9p.clients.console", "KERNEL   attach to a kernel's console"),
    "mount": ("mk9p.clients.mount", "[DIAL] DIR   mount with v9fs, or FUSE where the kernel has none"),
    "umount": ("mk9p.clients.mount", "DIR   unmount"),
    "socks": ("mk9p.clients.socks", "[-l HOST:PORT] KERNEL   a kernel's network as a SOCKS5 proxy on this machine"),
    "trace": ("mk9p.clients.trace", "ADDR [-l DIAL] [--pcap FILE]   show the messages between clients and a server"),
    "web": ("mk9p.clients.web.serving", "[-l HOST:PORT] [--write]   the namespace as a live page in a browser"),
    "ca": ("mk9p.clients.ca", "init|issue|list|revoke ...   certificates for TLS, for those who have no authority"),
    "context": ("mk9p.clients.context", "add|use|list|remove ...   namespaces with their keys, by name"),
    "login": ("mk9p.clients.context", "[ADDR]   try to come in, tell who you are there, and keep it as a context"),
    "grant": ("mk9p.clients.granting", "PATH OPS [--to NAME] [--for TIME]   make a capability for a path"),
    "narrow": ("mk9p.clients.granting", "[PATH [OPS]] [--to NAME] [--for TIME]   make a narrower capability of one"),
    "revoke": ("mk9p.clients.granting", "ID...   end capabilities and what was narrowed from them"),
    "metrics": ("mk9p.clients.metrics", "[-o FILE | -l HOST:PORT]   figures of all kernels, for Prometheus"),
    "lease": ("mk9p.clients.leasing", "[take PATH -- COMMAND [ARG...]]   run a command while a path is leased"),
    "help": ("mk9p.clients.help", "[NAME]   the manual: the page of a resource server, or the list of pages"),
    "completion": ("mk9p.clients.completion", "bash|zsh|fish   what makes a shell complete all of this"),
    "new-server": ("mk9p.clients.new_server", "NAME [DIR]   make the package of a new resource server"),
    "doctor": (
        "mk9p.clients.doctor",
        "[ADDR|PATH]   find what v9fs stumbles over, in a tree or a mount's options",
    ),
}


def usage() -> str:
    """Return the usage of all subcommands."""
    lines = ["usage: mk9p [-a DIAL] [-c CONTEXT] [--cap FILE] COMMAND ...", ""]
    for name, (_, words) in COMMANDS.items():
        form, _, what = words.partition("   ")
        form = f"{name} {form}"
        lines += [f"  {form:<27} {what}"] if len(form) < 28 else [f"  {form}", f"{'':30}{what}"]
    lines += [
        "",
        "Commands work on the tree of -a DIAL, here or after COMMAND, else on that of $MK9P, else on that of the context in use (-c names another),",
        "else on the namespace of `mk9p up`. --cap FILE, here or after COMMAND, else $MK9P_CAP, shows them a capability.",
        "Plan 9's words work too: " + ", ".join(f"{word} is {name}" for word, name in ALIASES.items()) + ".",
        "For tls!, --ca, --cert and --key FILE stand here or after COMMAND, or in a context.",
        "`mk9p COMMAND --help` tells a command's options, `mk9p help` what the files are.",
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status."""
    if arguments is None:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
            import_module(COMMANDS["completion"][0]).complete()
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
    said: dict[str, str] = {}
    while words:
        name, equals, given = words[0].partition("=")
        if equals and name.startswith("--") and name in GLOBAL:
            words[:1] = [name, given]
        if words[0] not in GLOBAL:
            break
        option = words[0]
        if len(words) < 3:
            what = {"-a": "a dial string", "-c": "a context"}.get(option, "a file")
            example = {"-a": "'unix!/run/mk9p/ns'", "-c": "lab"}.get(option, "FILE")
            complain(f"mk9p: {option} wants {what} and a command: mk9p {option} {example} ls")
            return 2
        said[GLOBAL[option]] = words[1]
        del words[:2]
    if not words or words[0] in ("-h", "--help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        from importlib.metadata import version

        print(f"mk9p {version('mk9p')}")
        return 0
    words[:1] = ALIASES.get(words[0], words[0]).split(" ")
    if words[0] not in COMMANDS:
        from difflib import get_close_matches

        near = " ".join(get_close_matches(words[0], [*COMMANDS, *ALIASES]))
        hint = f"similar: {near}" if near else "`mk9p --help` lists them"
        complain(f"mk9p: no command {words[0]!r}; {hint}")
        return 2
    # its help, and what is wrong with its words, want nothing of the command itself
    tell(said | {name: value for name, value in vars(parsed(words)).items() if name in GLOBAL.values()})
    # What modules make stays. To look through it for garbage takes a twentieth of the time of a short command.
    gc.disable()
    module = import_module(COMMANDS[words[0]][0])
    gc.enable()
    status: int = module.main(words)
    return status


if __name__ == "__main__":
    sys.exit(main())
