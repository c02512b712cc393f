"""A kernel without a network card uses another's: k2 fetches a page from the host, serves one that the host fetches, and resolves a name, all with k1's /net.

k1 is under QEMU with a network card on QEMU's own network (the host is 10.0.2.2, and a port of the host leads to k1). k2 is a QEMU guest with none; all
that it has is the namespace, mounted with v9fs.
"""

import http.server
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs
import pytest

from clients import labs_for_tests as _  # noqa: F401
