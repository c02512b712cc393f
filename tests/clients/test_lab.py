"""Lab files: what they may say of a guest's grants, and the lab that is started without one, which is such a file."""

import errno
import tomllib
from pathlib import Path

import pytest

from mk9p.clients.lab import DEFAULT, read_lab
from mk9p.clients.up import main
from mk9p.errors import NineError


def test_the_lab_without_a_file_is_printed_as_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["up", "--print"]) == 0
    printed = capsys.readouterr().out
    assert printed == DEFAULT
    (tmp_path / "lab.toml").write_text(printed)
    assert read_lab(str(tmp_path / "lab.toml")) == read_lab(None)
    assert not any("grants" in words for words in read_lab(None).values())  # README's session is the host's


def test_grants_are_read_as_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "lab.toml"
    file.write_text('[k1]\ngrants = ["/k/k2 rw", "\'/k/k0/fs/my data\' ro"]\n')
    assert read_lab(str(file)) == {"k1": tomllib.loads(file.read_text())["k1"]}


@pytest.mark.parametrize(
    ("grants", "said"),
    [
        ('"/k/k2 rw"', "want grants = "),
        ("[1]", "want grants = "),
        ('["/k/k2"]', r"usage: grant PATH ro\|rw"),
        ('["k/k2 rw"]', r"usage: grant PATH ro\|rw"),
        ('["/k/k2 write"]', r"usage: grant PATH ro\|rw"),
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
