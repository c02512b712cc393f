"""Resource servers: one module each, `tree(**options) -> Node`, reached by their entry point in the group `mk9p.servers`."""
