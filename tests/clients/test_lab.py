"""Lab files: what they may say of a guest's grants, and the lab that is started without one, which is such a file."""

import errno
import re
import socket
import tomllib
from pathlib import Path

import pytest
import trio

from mk9p.clients import demo_steps
from mk9p.clients import lab as labs
from mk9p.clients.demo_steps import Step, show
from mk9p.clients.lab import DEFAULT, Lab, read_lab
from mk9p.clients.up import main, print_hints
from mk9p.errors import NineError
from mk9p.stdio import told
from mk9p.testing import SOON, mounted
from mk9p.tree import Dir


def test_the_lab_without_a_file_is_printed_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["up", "--print"]) == 0
    printed = capsys.readouterr().out
    assert printed == DEFAULT
    (tmp_path / "lab.toml").write_text(printed)
    assert read_lab(str(tmp_path / "lab.toml")) == read_lab(None)
    assert not any("grants" in words for words in read_lab(None)[1].values())  # README's session is the host's


def test_grants_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[k1]\ngrants = ["/k/k2 rw", "\'/k/k0/fs/my data\' ro"]\n')
    assert read_lab(str(file))[1] == {"k1": tomllib.loads(file.read_text())["k1"]}


@pytest.mark.parametrize(
    ("grants", "said"),
    [
        ('"/k/k2 rw"', "want grants = "),
        ("[1]", "want grants = "),
        ('["/k/k2"]', r"usage: grant PATH ro\|rw"),
        ('["k/k2 rw"]', r"usage: grant PATH ro\|rw"),
        ('["/k/k2 write"]', "OPS are letters of rwcnd"),
        ('["/k/k2 ro", "/k/k2/fs rw"]', "/k/k2/fs rw lies in /k/k2 ro"),
    ],
)
def test_a_wrong_grant_is_told_before_anything_is_started(tmp_path: Path, grants: str, said: str) -> None:
    file = tmp_path / "lab.toml"
    file.write_text(f"[k1]\ngrants = {grants}\n")
    with pytest.raises(NineError, match=said) as caught:
        read_lab(str(file))
    assert caught.value.errno == errno.EINVAL
    assert "k1: " in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[kernels.k1]\ncpus = 2\n", r"kernels: a kernel has a table of its own: \[k1\]"),
        (b"kernels = 3\n", r"kernels: want a table for each kernel: \[kernels\]"),
        (b"[k1\ncpus = 2\n", "Expected ']'"),
        (b"[k1]\ncpus = 2\nwords = '\xff'\n", "byte 23 is not UTF-8"),
    ],
)
def test_a_wrong_file_is_told_in_a_line_that_names_it(tmp_path: Path, text: bytes, said: str) -> None:
    file = tmp_path / "lab.toml"
    file.write_bytes(text)
    with pytest.raises(OSError, match=said) as caught:
        read_lab(str(file))
    assert str(file) in told(caught.value)


async def test_a_lab_without_a_kernel_that_runs_is_up_at_once() -> None:
    async with mounted(Dir({"kernels": Dir({})})) as ns:
        with trio.fail_after(SOON):
            await labs.serving(ns, [], lambda *_: None)


def test_a_lab_takes_nobody_elses_place(tmp_path: Path) -> None:
    lab = Lab(tmp_path / "lab")
    assert (lab.socket, lab.address) == (tmp_path / "ns", f"unix!{tmp_path}/ns")
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(str(tmp_path / "ns"))
        machine.listen()
        assert lab.socket == tmp_path / "lab.ns"
        # a lab whose warden was killed, and the place that it had is another's now
        lab.run.mkdir()
        (lab.run / "socket").write_text(str(tmp_path / "ns"))
        assert lab.socket == tmp_path / "ns"
        assert lab.end()
        assert (tmp_path / "ns").is_socket()
    assert lab.socket == tmp_path / "ns", "nobody listens there any more"
    lab.run.mkdir()
    assert lab.end()
    assert not (tmp_path / "ns").exists()


def test_what_to_type_next_names_the_namespace_that_is_not_at_the_usual_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Lab(tmp_path / "lab")
    print_hints(lab, ["k7"], mounted=False)
    assert " -a " not in capsys.readouterr().out
    with socket.socket(socket.AF_UNIX) as machine:
        machine.bind(str(tmp_path / "ns"))
        machine.listen()
        print_hints(lab, ["k7"], mounted=False)
    said = capsys.readouterr().out
    assert f" -a unix:{tmp_path}/lab.ns run k7 -- uname -a\n" in said
    assert re.search(r"(?m)mk9p down ", said)


def test_a_step_of_the_demo_that_takes_long_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_steps, "SILENCE", 0.2)
    lab = Lab(tmp_path / "lab")
    lab.mount.mkdir(parents=True)
    assert show(lab, Step("", "sleep 0.5; echo done", "done"))
    said = capsys.readouterr()
    assert said.out.endswith("done\n")
    assert said.err.startswith("mk9p: no answer for 0 s yet")
    assert not show(lab, Step("", "echo other", "done"))


def test_a_lab_file_with_an_unknown_key_is_told_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[k1]\nbackend = "uml"\nmemroy = "1G"\n')
    monkeypatch.setattr(Lab, "start", lambda _: pytest.fail("it was started"))
    with pytest.raises(NineError) as wrong:
        main(["up", str(file)])
    assert str(wrong.value).startswith(f"{file}: k1: unknown key 'memroy'; similar: memory")
    assert "\n" not in str(wrong.value)


def test_who_is_not_root_is_told_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("sys.argv", ["mk9p", "up", "my lab.toml"])
    monkeypatch.setattr(labs, "typed", lambda *, full: ["/opt/venv/bin/mk9p"] if full else ["mk9p"])
    with pytest.raises(NineError, match=r": sudo /opt/venv/bin/mk9p up 'my lab.toml'$") as refused:
        Lab(tmp_path / "lab").start()
    assert refused.value.errno == errno.EPERM
    assert not (tmp_path / "lab").exists()
