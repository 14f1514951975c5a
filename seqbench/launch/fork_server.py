"""Prepare the fork server of local jobs, which imports this module before all others.

The server ignores SIGTERM. SIGTERM to a process group (by `timeout` or a cluster) also reaches the
launcher and the jobs, which then end in order. The server must outlive them: it reports the exit
codes of the jobs. It reads the sources of seqbench once, for the hashes of all jobs.
"""

import os
import signal

from seqbench.runs.source_hash import source_hash

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
source_hash({})
