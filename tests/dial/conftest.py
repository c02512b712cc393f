"""Every test here leaves as many descriptors as it found, besides what every test must leave."""

import pytest


@pytest.fixture
def open_too() -> bool:
    return True
