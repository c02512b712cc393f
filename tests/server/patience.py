"""How long tests wait for what must come. A machine that has much else to do may take twenty times as long as this one: no test may fail by that."""

SOON = 60.0  # seconds
