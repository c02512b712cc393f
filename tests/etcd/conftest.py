"""One etcd of three members for all tests that leave it whole."""

from collections.abc import Iterator

import pytest

from tests.etcd.cluster import Cluster, running


@pytest.fixture(scope="session")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running(Cluster.of(tmp_path_factory.mktemp("etcd"))) as cluster:
        yield cluster


@pytest.fixture
def etcd(members: Cluster) -> Cluster:
    """An etcd that is empty, and whole again after the test."""
    for member in members.members:
        if not member.runs:
            members.start(member)
        member.resume()
    members.wipe()
    return members
