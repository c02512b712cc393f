"""The directory of other machines' kernels: what is known of one that is reached by the connections of those who use it."""

import trio

from mk9p.compose.far import Kernel, Machine
from mk9p.compose.far_records import Said
from mk9p.compose.far_server import FarServer


async def test_a_kernel_that_only_the_connections_of_its_users_reach_is_up() -> None:
    async with trio.open_nursery() as nursery:
        machine = Machine("m")
        machine.there = True
        kernel = Kernel(machine, "k1", Said("unix!/nowhere", up=True))
        assert kernel.state()[0] == "idle"
        kernel.server = FarServer("unix!/nowhere", nursery, doubted=lambda: None)
        assert kernel.state()[0] == "idle"
        kernel.server.heard(True, "")
        assert kernel.state()[0] == "up"
        kernel.server.heard(False, "the cable")
        assert kernel.state()[0] == "idle"  # whoever made the server notes why it went
