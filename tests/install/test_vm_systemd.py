"""Two machines of Debian with the packages, under a real systemd: their services serve, compose, start by their sockets, and are mounted by fstab.

It takes minutes where CPUs are emulated: `MK9P_LONG=1` runs it.
"""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.install.debian import Tree
from tests.install.guests import Machine, machines
from tests.vm.lab_vm import short_folder

pytestmark = pytest.mark.minutes


@pytest.fixture(scope="module")
def both(debian: Tree) -> Iterator[list[Machine]]:
    with short_folder() as place, machines(debian, Path(place), ("alpha", "beta")) as started:
        yield started


@pytest.fixture(scope="module")
def alpha(both: list[Machine]) -> Machine:
    """Give the machine that serves, with its services on."""
    both[0].run("systemctl enable --now mk9p-serve mk9p-compose")
    return both[0]


@pytest.fixture(scope="module")
def beta(both: list[Machine], alpha: Machine) -> Machine:
    """Give the machine that composes, whose root may come to the other by ssh."""
    machine = both[1]
    key = machine.run(
        "mkdir -p /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519; cat /root/.ssh/id_ed25519.pub"
    )
    alpha.run(f"mkdir -p /root/.ssh; echo '{key.strip()}' >/root/.ssh/authorized_keys; systemctl start ssh")
    host = alpha.run("cat /etc/ssh/ssh_host_ed25519_key.pub")
    machine.run(f"echo '10.9.0.1 {host.strip()}' >/root/.ssh/known_hosts")
    return machine


def test_its_services_start_and_systemd_knows_when_they_serve(alpha: Machine) -> None:
    for name in ("mk9p-serve", "mk9p-compose"):
        assert alpha.run(f"systemctl is-active {name}.service {name}.socket").split() == ["active", "active"]
        assert alpha.run(f"systemctl show -P NRestarts {name}") == "0\n"
    alpha.until("mk9p cat k/k0/status", "name alpha\n")
    assert alpha.run("journalctl -q -p warning -u mk9p-serve -u mk9p-compose -o cat") == ""


def test_a_service_that_is_stopped_starts_when_somebody_comes(alpha: Machine) -> None:
    alpha.run("systemctl stop mk9p-serve.service mk9p-compose.service")
    assert alpha.run("systemctl is-active mk9p-serve.service", status=3).strip() == "inactive"
    alpha.until("mk9p -a unix!/run/mk9p/serve cat status", "name alpha\n")
    assert alpha.run("systemctl is-active mk9p-serve.service") == "active\n"
    alpha.until("mk9p cat k/k0/status", "name alpha\n")


def test_the_composer_has_nothing_of_root_but_its_name(alpha: Machine) -> None:
    pid = alpha.run("systemctl show -P MainPID mk9p-compose").strip()
    status = alpha.run(f"cat /proc/{pid}/status")
    assert re.search(r"^Uid:\s+0\s", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0000000000000400$", status, re.MULTILINE), "CAP_NET_BIND_SERVICE alone"
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)


def test_it_controls_the_machine_through_the_composer(alpha: Machine) -> None:
    assert alpha.run("mk9p write k/k0/ctl hostname omega; cat /proc/sys/kernel/hostname") == "omega\n"
    alpha.run("mk9p write k/k0/ctl hostname alpha")
    assert alpha.run("mk9p run k0 -- id -un") == "root\n"


def test_two_machines_are_one_namespace_by_ssh_and_by_tcp(alpha: Machine, beta: Machine) -> None:
    alpha.run("sed -i 's/^#listen = .*/listen = [\"tcp!*!564\"]/' /etc/mk9p/serve.toml; systemctl restart mk9p-serve")
    beta.run(
        "printf '%s\\n' \"mount 'exec!ssh -oBatchMode=yes 10.9.0.1 mk9p serve -l fd!0!1' /k/alpha\" 'mount tcp!10.9.0.1!564 /k/tcp' "
        ">>/etc/mk9p/namespace; systemctl enable --now mk9p-serve mk9p-compose"
    )
    beta.until("mk9p cat k/alpha/status", "name alpha\n")
    beta.until("mk9p cat k/tcp/status", "name alpha\n")
    beta.until("mk9p cat k/k0/status", "name beta\n")
    assert beta.run("mk9p run alpha -- uname -n") == "alpha\n"
    beta.run("mk9p write k/tcp/ctl hostname x", status=1)


def issued(folder: Path, *words: str) -> None:
    """Let `mk9p ca` do something in a folder of this machine."""
    subprocess.run([sys.executable, "-m", "mk9p", "ca", *words, "--dir", str(folder / "ca")], check=True, cwd=folder)


def give(machine: Machine, *files: Path) -> None:
    """Put files into a machine's /etc/mk9p."""
    for file in files:
        machine.run(f"echo {base64.b64encode(file.read_bytes()).decode()} | base64 -d >/etc/mk9p/{file.name}")
    machine.run("chmod 600 /etc/mk9p/*.key")


def test_two_machines_are_one_namespace_by_tls_and_each_knows_the_other(
    alpha: Machine, beta: Machine, tmp_path: Path
) -> None:
    issued(tmp_path, "init")
    issued(tmp_path, "issue", "alpha", "--host", "10.9.0.1")
    issued(tmp_path, "issue", "beta")
    authority = tmp_path / "ca/ca.pem"
    give(alpha, authority, tmp_path / "alpha.pem", tmp_path / "alpha.key")
    give(beta, authority, tmp_path / "beta.pem", tmp_path / "beta.key")
    keys = 'ca = "/etc/mk9p/ca.pem"\ncert = "/etc/mk9p/{0}.pem"\nkey = "/etc/mk9p/{0}.key"'
    alpha.run(
        'sed -i \'s/^listen = .*/listen = ["tcp!*!564", "tls!*!5640"]/\' /etc/mk9p/serve.toml; '
        f"printf '%s\\n' '{keys.format('alpha')}' >>/etc/mk9p/serve.toml; systemctl restart mk9p-serve"
    )
    beta.run(
        f"printf '%s\\n' '{keys.format('beta')}' >>/etc/mk9p/compose.toml; "
        "echo 'mount tls!10.9.0.1!5640 /k/tls' >>/etc/mk9p/namespace; systemctl restart mk9p-compose"
    )
    beta.until("mk9p cat k/tls/status", "name alpha\n")
    assert "principal cert:beta\n" in beta.run("mk9p cat k/tls/auth/whoami")
    said = beta.run("mk9p --ca /etc/mk9p/ca.pem -a tls!10.9.0.1!5640 cat status", status=1)
    assert said.startswith("mk9p cat: tls!10.9.0.1!5640: "), "nobody comes without a certificate"


def test_vsock_is_a_line_too_as_far_as_a_guest_has_it_alone(beta: Machine) -> None:
    """A line between host and guest takes vhost_vsock in the host's kernel, which a machine of CI need not have: this is a guest's own loopback."""
    beta.run("sed -i 's/^#listen = .*/listen = [\"vsock!*!564\"]/' /etc/mk9p/serve.toml; systemctl restart mk9p-serve")
    beta.run("echo 'mount vsock!local!564 /k/vsock' >>/etc/mk9p/namespace; systemctl restart mk9p-compose")
    beta.until("mk9p cat k/vsock/status", "name beta\n")


GET = """
from http.cookiejar import CookieJar
from urllib.request import HTTPCookieProcessor, build_opener

opener = build_opener(HTTPCookieProcessor(CookieJar()))
print(opener.open(open("/run/mk9p/web/url").read().strip()).read().decode())
with opener.open("http://127.0.0.1:9564/events") as events:
    for line in events:
        if b'"name":"k0"' in line:
            print(line.decode())
            break
"""


def test_the_live_page_is_a_service_that_has_nothing_of_root_but_its_name(alpha: Machine) -> None:
    alpha.run("systemctl enable --now mk9p-web")
    assert alpha.run("stat -c '%a %U' /run/mk9p/web /run/mk9p/web/url") == "700 root\n600 root\n"
    said = alpha.run(f"python3 - <<'END'\n{GET}\nEND")
    assert "<title>mk9p</title>" in said
    assert '"state":"up"' in said
    pid = alpha.run("systemctl show -P MainPID mk9p-web").strip()
    assert re.search(r"^CapEff:\s+0+$", alpha.run(f"cat /proc/{pid}/status"), re.MULTILINE)
    assert "token" not in alpha.run("journalctl -q -u mk9p-web -o cat"), "who reads the journal does not get in"
    alpha.run("systemctl disable --now mk9p-web; test ! -e /run/mk9p/web")


def test_a_line_of_fstab_mounts_it_when_somebody_looks(beta: Machine) -> None:
    line = "unix!/run/mk9p/ns /n mk9p noauto,x-systemd.automount,x-systemd.requires=mk9p-compose.service 0 0"
    beta.run(f"mkdir -p /n; echo '{line}' >>/etc/fstab; systemctl daemon-reload; systemctl start n.automount")
    assert "k0" in beta.run("ls /n/k").split()
    assert beta.run("grep -c '^/run/mk9p/ns /n 9p ' /proc/mounts") == "1\n"
    assert "name beta\n" in beta.run("cat /n/k/k0/status")
    beta.run("mount -a")
    beta.run("systemctl stop n.automount n.mount; ! grep ' /n 9p' /proc/mounts")


def test_a_mistake_in_the_config_is_one_line_of_the_journal_and_the_service_does_not_start(alpha: Machine) -> None:
    alpha.run("cp /etc/mk9p/serve.toml /root/; echo 'lisen = []' >>/etc/mk9p/serve.toml")
    alpha.run("systemctl restart mk9p-serve", status=1)
    said = alpha.run("journalctl -q -u mk9p-serve -o cat | grep lisen | sort -u")
    assert said == "mk9p serve: /etc/mk9p/serve.toml: unknown key 'lisen'; similar: listen\n"
    alpha.run("mv /root/serve.toml /etc/mk9p/; systemctl reset-failed; systemctl stop mk9p-serve.service")
    alpha.run("systemctl restart mk9p-serve.socket; systemctl start mk9p-serve")
    alpha.until("mk9p -a unix!/run/mk9p/serve cat status", "name alpha\n")


def test_the_drop_in_that_only_looks_runs_and_is_kept_in(alpha: Machine) -> None:
    alpha.run(
        "mkdir -p /etc/systemd/system/mk9p-serve.service.d; cp /usr/share/doc/mk9p/examples/watch.conf /etc/systemd/system/mk9p-serve.service.d/; "
        "systemctl daemon-reload; systemctl restart mk9p-serve"
    )
    try:
        alpha.until("mk9p -a unix!/run/mk9p/serve cat cpu/status", "online")
        alpha.run("mk9p -a unix!/run/mk9p/serve write cpu/ctl 'offline 1'", status=1)
        said = alpha.run("systemd-analyze security --no-pager mk9p-serve.service")
        level = re.search(r"Overall exposure level for .*: ([\d.]+)", said)
        assert level is not None
        assert float(level[1]) <= 3.0
    finally:
        alpha.run(
            "rm -r /etc/systemd/system/mk9p-serve.service.d; systemctl daemon-reload; systemctl restart mk9p-serve"
        )


def test_the_package_is_replaced_while_its_services_run(alpha: Machine) -> None:
    before = alpha.run("systemctl show -P MainPID mk9p-serve mk9p-compose").split()
    alpha.run("dpkg -i /root/mk9p_*.deb")
    after = alpha.run("systemctl show -P MainPID mk9p-serve mk9p-compose").split()
    assert not set(before) & {*after, "0"}
    alpha.until("mk9p cat k/k0/status", "name alpha\n")
