"""The shell commands and programs of a page of docs/, run as somebody types them who reads it from its top to its end.

A page's blocks of `sh` and `python` are one session, in a directory of its own. A comment of HTML before a block says otherwise, and readers do not
see it:

    <!-- not run: WHY -->     it is only read: what it needs is not here
    <!-- lab -->              it needs kernels: it runs only with MK9P_LONG=1, and so does all that comes after it
    <!-- says: TEXT -->       what it prints has this text (again for more)

The session has namespaces of its own for mounts, processes, the network and the machine's name, so `/run/mk9p`, `/mnt` and every port are
free, and nothing stays. `ssh HOST COMMAND` runs the command here, as on a machine of that name. After a daemon in the background the session waits
until that listens.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs

_COMMENT = re.compile(r"<!-- (not run|lab|says)(?:: (.*?))? -->")
_FENCE = re.compile(r"```(\w*)")
PATIENCE = 180  # seconds for a page
LAB_PATIENCE = 550

SSH = """#!/bin/sh
while [ "${1#-}" != "$1" ]; do shift; done
name=$1; shift
exec unshare --uts sh -c 'echo "$0" >/proc/sys/kernel/hostname; exec sh -c "$*"' "$name" "$@"
"""
BEGIN = """
set -e
mount -t tmpfs run /run; mount -t tmpfs mnt /mnt; mount -t tmpfs srv /srv
mkdir -p /run/mk9p /run/netns "$T/etc"
[ ! -d /etc/mk9p ] || mount --bind "$T/etc" /etc/mk9p
printf '127.0.0.1 localhost box rack7\\n' >"$T/hosts"; mount --bind "$T/hosts" /etc/hosts
ip link set lo up
_lines=0
_ready() {
	_lines=$((_lines + $1))
	until [ "$(grep -c '^mk9p: listening on [^f]' "$T/err")" -ge $_lines ]; do
		kill -0 $! || { echo "it has ended" >&2; exit 1; }
		sleep 0.05
	done
}
cd "$T/work"
"""


@attrs.frozen
class Block:
    """A block of a page: the number of its first line, its language, its text, and what the comment before it says."""

    line: int
    language: str
    text: str
    reason: str | None = None
    lab: bool = False
    says: tuple[str, ...] = ()


def blocks(text: str) -> Iterator[Block]:
    """Yield the blocks of `sh` and `python` of a page. Raises AssertionError for a comment that no block follows."""
    lines = text.splitlines()
    at, told = 0, Block(0, "", "")
    while at < len(lines):
        line = lines[at]
        if fence := _FENCE.fullmatch(line):
            end = next(n for n in range(at + 1, len(lines)) if lines[n] == "```")
            if fence[1] in ("sh", "python"):
                yield attrs.evolve(told, line=at + 2, language=fence[1], text="\n".join(lines[at + 1 : end]) + "\n")
            else:
                assert told == Block(0, "", ""), f"line {at + 1}: a comment, and then no block of sh or python"
            at, told = end, Block(0, "", "")
        elif comment := _COMMENT.fullmatch(line):
            match comment[1]:
                case "not run":
                    assert comment[2], f"line {at + 1}: say why it is not run"
                    told = attrs.evolve(told, reason=comment[2])
                case "lab":
                    told = attrs.evolve(told, lab=True)
                case _:
                    told = attrs.evolve(told, says=(*told.says, comment[2]))
        elif line.strip():
            assert told == Block(0, "", ""), f"line {at + 1}: a comment, and then no block"
        at += 1


def session(found: list[Block], place: Path) -> str:
    """Return the script of a page, which runs in a directory."""
    script = [BEGIN]
    for block in found:
        if block.language == "python":
            file = place / f"program{block.line}.py"
            file.write_text(block.text)
            text = f"python {file}\n"
        else:
            text = re.sub(
                r"(mk9p (?:-\S+ )*(?:serve|compose)\b[^\n]*&)$",
                lambda daemon: f"{daemon[1]} _ready {len(re.findall(' -l [^f]', daemon[1])) or 1}",
                block.text,
                flags=re.MULTILINE,
            )
        script.append(f'echo \'--- line {block.line}\' >>"$T/err"\n{{\n{text}}} >"$T/out{block.line}"\n')
    return "".join(script)


def run(page: Path, place: Path, *, long: bool) -> None:
    """Run the blocks of a page. Raises AssertionError with the line and what was printed there."""
    every = list(blocks(page.read_text()))
    first_lab = next((n for n, block in enumerate(every) if block.lab), len(every))
    found = [block for block in (every if long else every[:first_lab]) if block.reason is None]
    for name in ("work", "bin", "home"):
        (place / name).mkdir()
    (place / "bin/ssh").write_text(SSH)
    (place / "bin/ssh").chmod(0o755)
    (place / "session.sh").write_text(session(found, place))
    with (place / "err").open("w") as err:
        done = subprocess.run(
            [
                *(
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "--net",
                    "--uts",
                    "--pid",
                    "--mount-proc",
                    "--fork",
                ),
                *("--kill-child", "bash", str(place / "session.sh")),
            ],
            env={
                "PATH": f"{place}/bin:{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": f"{place}/home",
                "XDG_STATE_HOME": f"{place}/state",
                "T": str(place),
                "LC_ALL": "C.UTF-8",
                **{name: os.environ[name] for name in ("MK9P_CACHE",) if name in os.environ},
            },
            stdin=subprocess.DEVNULL,
            stdout=err,
            stderr=err,
            timeout=LAB_PATIENCE if long and first_lab < len(every) else PATIENCE,
            check=False,
        )
    outs = {block.line: place / f"out{block.line}" for block in found}
    last = max((line for line, out in outs.items() if out.exists()), default=0)
    printed = outs[last].read_text(errors="replace") if last else ""
    assert done.returncode == 0, (
        f"{page.name}, line {last}: {printed}{(place / 'err').read_text(errors='replace')[-3000:]}"
    )
    for block in found:
        for text in block.says:
            printed = outs[block.line].read_text(errors="replace")
            assert text in printed, f"{page.name}, line {block.line}: {text!r} is not in what it printed: {printed}"
