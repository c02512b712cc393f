"""The kernel's own counters, as `key value` lines: /proc/net/snmp, netstat and snmp6 (their names are those of RFC 1213 and Linux)."""

from collections.abc import Iterator
from pathlib import Path

from mk9p.ktext import split_lines, split_words, whole


def counters(root: str, *groups: str) -> str:
    """Render the counters of some groups, such as Tcp or TcpExt, one on a line; nothing for a group that this kernel does not have."""
    net = Path(root, "proc/net")
    lines = []
    for group in groups:
        for name, value in _of(net, group):
            lines.append(f"{name} {value}\n")
    return "".join(lines)


def _of(net: Path, group: str) -> Iterator[tuple[str, str]]:
    for file in ("snmp", "netstat"):
        rows = [split_words(line) for line in _lines(net / file) if line.startswith(f"{group}:")]
        for names, values in zip(rows[::2], rows[1::2], strict=False):
            yield from zip(names[1:], values[1:], strict=False)
    for name, value in (split_words(line) for line in _lines(net / "snmp6") if line.startswith(group)):
        if group.endswith("6"):
            yield name, value


def _lines(path: Path) -> list[str]:
    try:
        return split_lines(whole(path))
    except FileNotFoundError:
        return []
