"""mk9p: the devices and state of several Linux kernels as one 9P file tree."""
