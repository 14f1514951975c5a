"""`python -m seqbench`."""

import os
import sys

# Python puts the current folder first, where a `queue.py` would replace the standard library's.
if sys.path[0] in ("", os.getcwd()):  # noqa: PTH109
    sys.path.append(sys.path.pop(0))

from seqbench.cli.main import main

main()
