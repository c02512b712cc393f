"""Live pages that the tests of a module share."""

from collections.abc import Iterator

import pytest

from tests.web.page import Page, page


@pytest.fixture(scope="module")
def reading(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("web")) as made:
        yield made


@pytest.fixture(scope="module")
def writing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with page(tmp_path_factory.mktemp("web"), "--write") as made:
        yield made
