"""The live page over real kernels: their CPUs, a word to one of them, a console."""

import os
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from mk9p.testing import child, hear
from tests.vm.lab_vm import PATIENCE, Vm, until
from tests.web.test_browser import CHROMIUM, chromium

__all__ = ["chromium"]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def url(vm: Vm) -> Iterator[str]:
    words = vm.words("web", "--write", "-l", "127.0.0.1:0")
    with child(words, stdout=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"}) as process:
        yield hear(process, "http://").strip()


def test_a_cpu_of_a_real_kernel_is_seen_and_taken_out_of_use(vm: Vm, url: str, chromium: Any) -> None:
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE * 1000)
    try:
        opened = context.new_page()
        opened.goto(url)
        card = opened.get_by_role("article", name="k1")
        card.get_by_role("list", name="CPUs of k1").get_by_role("button").nth(1).wait_for()
        card.get_by_role("button", name="active: qemu 6.1").wait_for()
        opened.get_by_role("article", name="k2").get_by_role("list", name="CPUs of k2").wait_for()
        opened.get_by_label("Path").fill("/k/k1/cpu/ctl")
        opened.keyboard.press("Enter")
        opened.get_by_label("Write a word").fill("offline 1")
        opened.get_by_role("button", name="Write").click()
        opened.get_by_text("written: offline 1").wait_for()
        assert vm.sh("k1", "cat /sys/devices/system/cpu/cpu1/online") == "0\n"
        opened.keyboard.press("Escape")
        card.get_by_role("button", name="CPU 1 of k1: offline").wait_for()
        vm.sh("k1", "echo 1 >/sys/devices/system/cpu/cpu1/online")
        until(lambda: card.get_by_role("button", name="CPU 1 of k1: online").count(), "the CPU is seen again")
        card.get_by_role("link", name="console").click()
        opened.locator("#plain, .xterm-rows").get_by_text("mk9p").first.wait_for(state="attached")
    finally:
        context.close()
        vm.sh("k1", "echo 1 >/sys/devices/system/cpu/cpu1/online")
