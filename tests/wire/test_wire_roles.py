"""What messages mean, as their classes say it (roles.py)."""

from mk9p.wire import messages as m
from mk9p.wire import roles


def test_a_place_behind_a_string_is_not_told() -> None:
    version, attach = m.Rversion.fields[1:], m.Rattach.fields[1:]
    assert roles._path_at(attach) == roles.PATH_AT[m.Rattach.type] > 0
    assert roles._path_at((*version, *attach)) is None
    assert roles._path_at(version) == 0
