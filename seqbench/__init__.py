"""seqbench: train sequence models on benchmark tasks and compare their scores over seeds."""

import os

__version__ = "0.1.0"

# Iterations that a waiting OpenMP thread spins before it yields its core. GNU's default spins for
# 3 ms. If another program makes two of seqbench's threads share a core, each of a step's hundred
# operations waits that long: with both of two cores busy, a TCN's step took 2.6 s with two threads.
# With SPIN it took 0.24 s, and 1 % longer than the default on an idle machine. Fewer iterations
# would not bridge the gaps between operations. OpenMP reads the variable once, when torch is
# imported.
SPIN, SPIN_BY_DEFAULT = "10000", "300000"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
