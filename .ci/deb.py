"""deb.py DIR: make Debian packages in a directory: mk9p, for every machine with Python 3.11, and mk9p-fuse, with what is compiled for this one.

It lays the files out as they are installed, and calls dpkg-deb, which every Debian has. debhelper would bring forty packages to do the same: there
is nothing to compile here, and the Python packages are not Debian's own. Debian 12 has trio 0.22, which is older than what mk9p needs, so they are
in a folder of mk9p's own, /usr/share/mk9p, that no other program imports from (`bundle.py`). The same tree gives the same bytes.
"""

import gzip
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import distribution, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import bundle
import man
from argcomplete.shell_integration import shellcode

ROOT: Final = bundle.ROOT
SOURCES: Final = ROOT / "packaging"
REVISION: Final = "1"
UNITS: Final = "mk9p-serve.socket mk9p-serve.service mk9p-compose.socket mk9p-compose.service mk9p-web.service"
WHO: Final = f"{os.environ.get('DEBFULLNAME', 'mk9p')} <{os.environ.get('DEBEMAIL', 'root@localhost')}>"
ABOUT: Final = "devices and state of several Linux kernels as one file tree"
FUSE_ABOUT: Final = "mount trees of mk9p with FUSE"

PLACE: Final = "/usr/share/mk9p"
COMPILED: Final = "/usr/lib/mk9p/cpython-%d%d"  # of one version of Python
LAUNCHER: Final = f"""\
#!/usr/bin/python3 -I
import sys

sys.path[:0] = ["{PLACE}", "{COMPILED}" % sys.version_info[:2]]
from mk9p.itself import BUNDLE

BUNDLE.append("{PLACE}")
from {{module}} import main

sys.exit(main())
"""
COMPLETION: Final = {
    "bash": "usr/share/bash-completion/completions/mk9p",
    "zsh": "usr/share/zsh/vendor-completions/_mk9p",
    "fish": "usr/share/fish/vendor_completions.d/mk9p.fish",
}
COMMON: Final = "/usr/share/common-licenses"
KNOWN: Final = (
    ("Apache-2.0", r"Apache License\s+Version 2.0, January 2004"),
    ("GPL-2", r"GNU GENERAL PUBLIC LICENSE\s+Version 2"),
    ("LGPL-2", r"LGPL|GNU Lesser|GNU Library"),
)
NOTICE: Final = re.compile(r"Copyright (?:©|\(c\)|\d{4}).*", re.IGNORECASE)
PROGRAMS: Final = {"usr/bin/mk9p": "mk9p.__main__", "usr/sbin/mount.mk9p": "mk9p.clients.mount_helper"}
CONTROL: Final = """\
Package: {package}
Version: {version}
Architecture: {architecture}
Maintainer: {who}
Installed-Size: {size}
Depends: {depends}
{more}Section: admin
Priority: optional
Description: {about}
{text}
"""
TEXT: Final = """\
 Each kernel runs a small daemon, which exports its processors, memory,
 interrupts, devices, processes and commands as a 9P tree. A composer
 mounts these trees into one namespace, which is used with ls, cat and
 echo through a mount, from the shell, or from Python."""
FUSE_TEXT: Final = """\
 The Linux kernel's own client (v9fs) needs root, and is not in every
 kernel. With this package `mk9p mount` uses FUSE there."""

FUSE_SCRIPTS: Final = {
    "postinst": '[ "$1" != configure ] || py3compile -p mk9p-fuse /usr/lib/mk9p',
    "prerm": "py3clean -p mk9p-fuse",
}


def main(out: Path) -> None:
    """Make the packages."""
    stamp = os.environ.setdefault("SOURCE_DATE_EPOCH", _committed())
    number = f"{version('mk9p')}-{REVISION}"
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as there:
        tree = Path(there) / "mk9p"
        _lay(tree)
        _documents(tree / "usr/share/doc/mk9p", "mk9p", number, int(stamp))
        _build(
            tree,
            out,
            package="mk9p",
            version=number,
            architecture="all",
            depends="python3 (>= 3.11)",
            more="Recommends: mk9p-fuse\nSuggests: qemu-system-x86, busybox-static, zstd, python3-cryptography\n",
            about=ABOUT,
            text=TEXT,
        )
        tree = Path(there) / "fuse"
        _compiled(tree, "pyfuse3")
        _documents(tree / "usr/share/doc/mk9p-fuse", "mk9p-fuse", number, int(stamp))
        _write(tree / "usr/share/lintian/overrides/mk9p-fuse", (SOURCES / "lintian/mk9p-fuse").read_text())
        major, minor = sys.version_info[:2]
        _build(
            tree,
            out,
            package="mk9p-fuse",
            version=number,
            architecture=_said("dpkg", "--print-architecture"),
            depends=f"mk9p (= {number}), python3 (>= {major}.{minor}), python3 (<< {major}.{minor + 1}), fuse3, libfuse3-3 (>= 3.2), libc6 (>= 2.34)",
            more="",
            about=FUSE_ABOUT,
            text=FUSE_TEXT,
        )


def _lay(tree: Path) -> None:
    """Put the files of mk9p where they are installed."""
    place = tree / PLACE[1:]
    bundle.main(place)
    (place / "__main__.py").write_text(LAUNCHER.format(module="mk9p.__main__").partition("\n")[2])
    for path in place.rglob("*.py"):
        text = path.read_text()
        if text.startswith("#!"):  # nobody runs these by themselves
            path.write_text(text.partition("\n")[2])
    for program, module in PROGRAMS.items():
        _write(tree / program, LAUNCHER.format(module=module), 0o755)
    for source, target in (
        ("etc", "etc"),
        ("systemd", "usr/lib/systemd/system"),
        ("examples", "usr/share/doc/mk9p/examples"),
    ):
        shutil.copytree(SOURCES / source, tree / target)
    for page in [*(SOURCES / "man").iterdir()]:
        _zip(tree / f"usr/share/man/man{page.suffix[1:]}/{page.name}.gz", page.read_text())
    _zip(tree / "usr/share/man/man1/mk9p.1.gz", _page())
    for source in sorted((ROOT / "docs/files").glob("*.md")):
        text = man.page(source.stem, source.read_text(), version("mk9p"))
        _zip(tree / f"usr/share/man/man7/mk9p-{source.stem}.7.gz", text)
    for shell, path in COMPLETION.items():
        _write(tree / path, shellcode(["mk9p"], shell=shell) + "\n")
    _write(tree / "usr/share/lintian/overrides/mk9p", (SOURCES / "lintian/mk9p").read_text())
    control = tree / "DEBIAN"
    control.mkdir()
    conffiles = sorted(f"/{path.relative_to(tree)}\n" for path in (tree / "etc").rglob("*") if path.is_file())
    _write(control / "conffiles", "".join(conffiles))
    for script in (SOURCES / "deb").iterdir():
        _write(control / script.name, script.read_text().replace("UNITS", UNITS), 0o755)


def _compiled(tree: Path, name: str) -> None:
    """Put what is compiled of a package where this version of Python finds it."""
    place = tree / (COMPILED[1:] % sys.version_info[:2])
    place.mkdir(parents=True)
    for script, commands in FUSE_SCRIPTS.items():
        _write(tree / "DEBIAN" / script, f"#!/bin/sh\nset -e\n{commands}\n", 0o755)
    for file in distribution(name).files or ():
        if not str(file).startswith("..") and not bundle.LEFT_OUT.search(str(file)) and ".dist-info" not in str(file):
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), place / file)
            if file.suffix == ".so":
                subprocess.run(["strip", "--strip-unneeded", place / file], check=True)


def _documents(folder: Path, package: str, number: str, stamp: int) -> None:
    """Put the documents that every package has: the changes, and the licences of all that is in it."""
    when = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(stamp))
    entry = f"mk9p ({number}) unstable; urgency=medium\n\n  * See changelog.gz.\n\n -- {WHO}  {when}\n"
    _zip(folder / "changelog.Debian.gz", entry)
    _zip(folder / "changelog.gz", (ROOT / "CHANGELOG.md").read_text())
    names = ["pyfuse3"] if package == "mk9p-fuse" else ["mk9p", *sorted(bundle.needed("mk9p", bundle.EXTRAS))]
    _write(folder / "copyright", "\n\n".join(map(_licence, names)) + "\n")


def _licence(name: str) -> str:
    """Return a package's name and the text of its licence: for one that every Debian has, where that is."""
    found = distribution(name)
    files = [
        str(Path(str(file.locate())).read_text(errors="replace")).strip()
        for file in found.files or ()
        if re.search(r"\.dist-info/(licenses/)?(LICEN[CS]E|COPYING|NOTICE)[^/]*$", str(file))
    ]
    texts = [(ROOT / "LICENSE").read_text().strip()] if name == "mk9p" else files
    texts += [str(found.metadata.get("License-Expression") or found.metadata.get("License"))] if not texts else []
    texts = [
        next((f"{common}: {COMMON}/{common}" for common, words in KNOWN if re.search(words, text)), text)
        for text in texts
    ]
    home = found.metadata.get("Home-page") or next(iter(found.metadata.get_all("Project-URL") or ()), "")
    if not any(NOTICE.search(text) for text in texts):  # then its files have it
        sources = (Path(str(file.locate())) for file in found.files or () if file.suffix in (".py", ".pyx", ".pyi"))
        texts = [*sorted({notice for path in sources for notice in NOTICE.findall(path.read_text())}), *texts]
    return "\n\n".join([f"{name} {found.version} {home}".rstrip(), *texts])


def _page() -> str:
    """Return the manual page of the command, made of what the command itself says."""
    from mk9p.__main__ import usage

    escaped = man.escaped(usage())
    return (
        f'.TH MK9P 1 "" "mk9p {version("mk9p")}"\n.SH NAME\nmk9p \\- {ABOUT}\n.SH SYNOPSIS\n.nf\n{escaped}\n.fi\n'
        ".SH DESCRIPTION\n\\(gamk9p help\\(aq lists the pages of the manual of the files, which are in this command itself.\n"
        ".SH SEE ALSO\n.BR mk9p.toml (5),\n.BR mount.mk9p (8)\n"
    )


def _build(tree: Path, out: Path, **fields: str) -> None:
    control = tree / "DEBIAN"
    for path in tree.rglob("*"):
        if path.is_dir() or not os.access(path, os.X_OK):
            path.chmod(0o755 if path.is_dir() else 0o644)
    tree.chmod(0o755)
    files = [path for path in tree.rglob("*") if path.is_file() and control not in path.parents]
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    (control / "control").write_text(CONTROL.format(size=size, who=WHO, **fields))
    sums = (
        f"{_md5(path)}  {path.relative_to(tree)}\n"
        for path in sorted(files)
        if "etc" not in path.relative_to(tree).parts[:1]
    )
    (control / "md5sums").write_text("".join(sums))
    for path in control.iterdir():
        path.chmod(0o755 if os.access(path, os.X_OK) else 0o644)
    target = out / f"{fields['package']}_{fields['version']}_{fields['architecture']}.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", tree, target], check=True, stdout=subprocess.DEVNULL
    )
    print(f"{target}: {target.stat().st_size} bytes")


def _md5(path: Path) -> str:
    import hashlib

    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _zip(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


def _committed() -> str:
    """Return the time of what is packed: that of the last commit, or of the change log where there is no repository."""
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or str(int((ROOT / "CHANGELOG.md").stat().st_mtime))


def _said(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
