"""Make the fork server of local jobs ignore SIGTERM; it imports this module before all others.

SIGTERM to a process group (by `timeout` or a cluster) also reaches the launcher and the jobs, which
then end in order. The server must outlive them: it reports the exit codes of the jobs.
"""

import os
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
