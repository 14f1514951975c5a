"""seqbench: which sequence model is better on which task, and can one believe it?"""

import os

__version__ = "0.1.0"

# How often a thread that waits for others asks whether they are done before it leaves its core to
# them. GNU's OpenMP asks for 3 ms. Beside another program two of our threads may well share a core,
# and each of a step's hundred operations then takes as long as that: with both of two cores busy, a
# TCN's step took 2.6 s by two threads, 0.24 s so, and on an idle machine 1 % longer. Less would no
# longer bridge the gaps between operations. Torch's import reads it, once.
SPIN, SPIN_BY_DEFAULT = "10000", "300000"
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
