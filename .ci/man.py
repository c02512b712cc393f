"""Pages of the manual as man(7) pages: mk9p-cpu(7) is what `mk9p help cpu` shows, and man-db finds it by its subject."""

import re
from typing import Final

from mk9p.clients.help_text import rendered

WIDTH: Final = 72  # columns: man(1) indents by seven


def page(name: str, text: str, version: str) -> str:
    """Return a page of docs/files as a man page."""
    subject = re.search(r"^## NAME\n\S+ [-\u2013] (.*)", text, re.MULTILINE)
    out = [f'.TH MK9P-{name.upper()} 7 "" "mk9p {version}"', ".SH NAME"]
    out += [f"mk9p\\-{escaped(name)} \\- {escaped(subject[1] if subject else name)}"]
    for line in rendered(text.partition("## SYNOPSIS")[1] + text.partition("## SYNOPSIS")[2], WIDTH).splitlines():
        if line and not line.startswith(" "):
            out += [*([".fi"] if len(out) > 3 else []), f".SH {escaped(line)}", ".nf"]
        else:
            out.append(escaped(line.removeprefix("    ")) or ".sp")
    return "\n".join([*out, ".fi", ".SH SEE ALSO", ".BR mk9p (1)"]) + "\n"


def escaped(text: str) -> str:
    """Return text in which roff reads nothing: no escape, no request, no dash that is a hyphen."""
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga")
    return f"\\&{text}" if text.startswith((".", "\\(aq")) else text
