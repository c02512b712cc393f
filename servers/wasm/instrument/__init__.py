"""Make a module freezable: checkpoints in its loops (checkpoints.py), a stack that can be taken down and put up again (asyncify.py, by Binaryen),
all of its state exported (expose.py). binary.py reads and writes the binary form.
"""
