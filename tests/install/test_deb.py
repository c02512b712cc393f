"""The Debian packages: what is in them, and that a fresh Debian runs what they install. tests/install/test_vm_systemd.py starts their services."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from mk9p.__main__ import COMMANDS
from mk9p.usage import parsed
from tests.install.conftest import ROOT, made
from tests.install.debian import Tree, fresh

SERVICES = ("mk9p-serve", "mk9p-compose")
UNITS = [f"{name}.{kind}" for name in SERVICES for kind in ("socket", "service")] + ["mk9p-web.service"]


def contents(deb: Path) -> dict[str, str]:
    """Return the paths in a package, with their modes and owners."""
    done = subprocess.run(["dpkg-deb", "--contents", deb], check=True, capture_output=True, text=True)
    rows = (line.split(maxsplit=5) for line in done.stdout.splitlines())
    return {row[5].removeprefix("."): f"{row[0]} {row[1]}" for row in rows}


def test_the_same_tree_gives_the_same_bytes(debs: list[Path], tmp_path: Path) -> None:
    made("deb.py", tmp_path)
    assert [(tmp_path / deb.name).read_bytes() for deb in debs] == [deb.read_bytes() for deb in debs]


def test_it_has_the_command_its_services_their_config_and_pages(debs: list[Path]) -> None:
    found = contents(debs[0])
    for path in (
        "/usr/bin/mk9p",
        "/usr/sbin/mount.mk9p",
        *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS),
        *("/etc/mk9p/serve.toml", "/etc/mk9p/compose.toml", "/etc/mk9p/namespace"),
        *("/usr/share/man/man1/mk9p.1.gz", "/usr/share/man/man5/mk9p.toml.5.gz", "/usr/share/man/man8/mount.mk9p.8.gz"),
        *("/usr/share/bash-completion/completions/mk9p", "/usr/share/zsh/vendor-completions/_mk9p"),
        "/usr/share/fish/vendor_completions.d/mk9p.fish",
        *("/usr/share/doc/mk9p/copyright", "/usr/share/doc/mk9p/examples/watch.conf"),
    ):
        assert path in found
    assert set(found.values()) <= {"drwxr-xr-x root/root", "-rwxr-xr-x root/root", "-rw-r--r-- root/root"}
    assert {path for path, mode in found.items() if mode.startswith("-rwx")} == {
        "/usr/bin/mk9p",
        "/usr/sbin/mount.mk9p",
    }


def test_only_the_package_for_this_machine_has_anything_compiled(debs: list[Path]) -> None:
    one, other = (contents(deb) for deb in debs)
    assert not [path for path in one if path.endswith(".so")]
    assert [path for path in other if path.endswith(".so")]


def test_lintian_finds_nothing(debs: list[Path]) -> None:
    if shutil.which("lintian") is None:
        pytest.skip("no lintian here")
    done = subprocess.run(["lintian", "--fail-on", "error,warning", *debs], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_the_sample_config_is_taken_as_it_is_and_with_every_comment_taken_away(name: str, tmp_path: Path) -> None:
    command = name.removeprefix("mk9p-")
    sample = ROOT / f"packaging/etc/mk9p/{command}.toml"
    assert parsed([command, "--config", str(sample)])
    # a line that begins with # and no blank is an option, switched off
    whole = re.sub(r"^#(?=[\w\[])", "", sample.read_text(), flags=re.MULTILINE)
    assert len(tomllib.loads(whole)) > 4
    (tmp_path / "whole.toml").write_text(whole)
    assert parsed([command, "--config", str(tmp_path / "whole.toml")]).listen


def test_the_man_page_of_the_config_has_every_key() -> None:
    page = (ROOT / "packaging/man/mk9p.toml.5").read_text()
    for command in ("serve", "compose"):
        text = re.sub(
            r"^#(?=[\w\[])", "", (ROOT / f"packaging/etc/mk9p/{command}.toml").read_text(), flags=re.MULTILINE
        )
        for key in tomllib.loads(text):
            assert re.search(rf"^\.BR? .*\b{key}\b", page, re.MULTILINE), key


def test_it_runs_in_a_fresh_debian(debian: Tree) -> None:
    assert debian.run("mk9p", "--version").startswith("mk9p 0.")
    assert debian.run("mk9p", "help", "cpu").startswith("NAME\n")
    assert "usage: mount.mk9p" in debian.run("mount.mk9p", status=1)
    said = debian.run("mk9p", "serve", "--config", "/etc/mk9p/nothing.toml", status=1)
    assert said == "mk9p serve: /etc/mk9p/nothing.toml: No such file or directory\n"


def test_it_serves_and_composes_in_a_fresh_debian(debian: Tree) -> None:
    script = """
    set -e
    mkdir -p /run/mk9p
    echo "mount 'exec!mk9p serve -l fd!0!1 cpu mem' /k/k0" >/run/ns
    mk9p compose -l unix!/run/mk9p/ns /run/ns 2>/run/log & server=$!
    until grep -q listening /run/log; do sleep 0.1; done
    mk9p ls k/k0
    mk9p cat k/k0/cpu/status
    kill $server
    """
    said = debian.run("sh", "-c", script)
    assert {"cpu/", "mem/", "stats/"} <= set(said.split())
    assert "online" in said


def test_its_units_are_right_to_systemd(debian: Tree) -> None:
    assert (
        debian.run("systemd-analyze", "verify", "--man=no", *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS))
        == ""
    )


@pytest.mark.parametrize(
    ("unit", "most"), [("mk9p-compose.service", 3.0), ("mk9p-serve.service", 9.6), ("mk9p-web.service", 2.0)]
)
def test_its_services_are_kept_in_as_far_as_they_bear_it(unit: str, most: float, debian: Tree) -> None:
    said = debian.run("systemd-analyze", "security", "--offline=true", "--no-pager", f"/usr/lib/systemd/system/{unit}")
    level = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
    assert level is not None
    assert float(level[1]) <= most


def test_it_runs_in_the_debian_after_it_too(debs: list[Path], long: bool) -> None:
    if not long:
        pytest.skip("another Debian takes a while: MK9P_LONG=1")
    with fresh("trixie") as tree:
        shutil.copy(debs[0], tree.path / "root")
        tree.run("dpkg", "-i", f"/root/{debs[0].name}")
        assert tree.run("mk9p", "help", "cpu").startswith("NAME\n")
        assert (
            tree.run("systemd-analyze", "verify", "--man=no", *(f"/usr/lib/systemd/system/{unit}" for unit in UNITS))
            == ""
        )
        assert tree.run("sh", "-c", "mk9p -a 'exec!mk9p serve -l fd!0!1 cpu' cat cpu/status").count("online") > 0


def test_no_service_is_switched_on_by_installing(debian: Tree) -> None:
    assert not list((debian.path / "etc/systemd/system").rglob("mk9p*"))


def test_it_mounts_by_fuse_with_its_second_package(debian: Tree) -> None:
    if not Path("/dev/fuse").exists():
        pytest.skip("needs /dev/fuse")
    script = """
    set -e
    mkdir -p /run/mk9p /tmp/m
    mk9p serve -l unix!/run/mk9p/serve cpu 2>/run/log & server=$!
    until grep -q listening /run/log; do sleep 0.1; done
    mount -t mk9p -o fuse,ro unix!/run/mk9p/serve /tmp/m
    cat /tmp/m/cpu/status
    grep -c fuse.mk9p /proc/mounts
    umount /tmp/m
    kill $server
    """
    said = debian.run("sh", "-c", script)
    assert "online" in said
    assert said.endswith("\n1\n")


def test_the_man_page_of_the_command_has_every_command(debian: Tree) -> None:
    text = debian.run("sh", "-c", "gzip -dc /usr/share/man/man1/mk9p.1.gz").replace("\\-", "-")
    for name in COMMANDS:
        assert f"\n  {name}" in text


def test_every_page_of_the_manual_is_a_man_page_that_groff_takes(debs: list[Path], tmp_path: Path) -> None:
    subprocess.run(["dpkg-deb", "-x", debs[0], tmp_path], check=True)
    pages = sorted((tmp_path / "usr/share/man/man7").glob("mk9p-*.7.gz"))
    assert len(pages) == len(list((ROOT / "docs/files").glob("*.md")))
    if shutil.which("man") is None:
        pytest.skip("no man here")
    for page in pages:
        done = subprocess.run(
            ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page],
            env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANWIDTH": "80"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), page.name
    shown = subprocess.run(
        ["man", "-l", tmp_path / "usr/share/man/man7/mk9p-cpu.7.gz"],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", "MANPAGER": "cat"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "`online N…` bring CPUs into use" in shown.stdout


def test_purging_leaves_nothing(debs: list[Path], debian: Tree) -> None:
    debian.run("dpkg", "--purge", "mk9p-fuse")
    said = debian.run("sh", "-c", "mkdir -p /tmp/m; mk9p mount --fuse unix!/run/none /tmp/m", status=1)
    assert said.count("\n") == 1
    assert "install the Debian package mk9p-fuse" in said
    debian.run("sh", "-c", "mkdir -p /var/lib/mk9p; echo x >/var/lib/mk9p/qids; dpkg --purge mk9p")
    left = [
        path for path in debian.path.rglob("*mk9p*") if "/root/" not in str(path) and "/var/lib/dpkg" not in str(path)
    ]
    assert not left
    debian.run("dpkg", "-i", *(f"/root/{deb.name}" for deb in debs))
