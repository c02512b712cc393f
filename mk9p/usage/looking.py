"""The commands that tell what happens, wait for it, and explain what is there."""

from typing import Final

from mk9p.usage.common import Checks, Parser, Parsers, count, parser_of, seconds


def _wait(name: str) -> Parser:
    parser = parser_of(
        name,
        "Wait until a kernel is in a state (mk9p wait k1 active), or until a file has one of some words. "
        "The exit status is 0 when it is so, and 1 when the time is over, or when it can no longer be so.",
    )
    parser.add_argument("-t", "--timeout", type=seconds, metavar="SECONDS", default=60.0, help="how long (60)")
    parser.add_argument("path", metavar="KERNEL|PATH", help="a name in kernels/, or the path of a file")
    parser.add_argument("words", metavar="WORD", nargs="+", help="a state, or a word of a line of the file")
    return parser


def _follow(parser: Parser) -> Parser:
    parser.add_argument("--json", action="store_true", help="each line as JSON: for scripts")
    parser.add_argument("-f", "--follow", action="store_true", help="show what comes, too")
    parser.add_argument(
        "-n", type=count, metavar="LINES", default=0, help="without -f: only the last lines; 0: all (0)"
    )
    return parser


def _logs(name: str) -> Parser:
    parser = _follow(parser_of(name, "Show the logs of all kernels, or of these, in order of time."))
    parser.add_argument("kernels", metavar="KERNEL", nargs="*", help="a name in k/ or kernels/")
    return parser


def _events(name: str) -> Parser:
    parser = _follow(parser_of(name, "Show event files in order of time: those of the namespace and of its kernels."))
    parser.add_argument("paths", metavar="PATH", nargs="*", help="event files")
    return parser


def _explain(name: str) -> Parser:
    parser = parser_of(name, "Show what the manual says of a file. The file need not exist.")
    parser.add_argument("path", metavar="PATH", help="its path in a kernel's tree, in the namespace, or on a mount")
    return parser


def _completion(name: str) -> Parser:
    parser = parser_of(
        name,
        'Print what makes a shell complete commands, options, kernels and paths: eval "$(mk9p completion bash)" in '
        "~/.bashrc, the same with zsh in ~/.zshrc after compinit; mk9p completion fish > ~/.config/fish/completions/mk9p.fish",
    )
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))
    return parser


PARSERS: Final[Parsers] = {
    "wait": _wait,
    "logs": _logs,
    "events": _events,
    "explain": _explain,
    "completion": _completion,
}
CHECKS: Final[Checks] = {}
