"""Imported by the fork server of local jobs, before all else.

What ends a whole group of processes (SIGTERM, by `timeout` or a cluster) reaches the launcher and
the jobs, too. They end in order; the server must live on, since by it they tell how they ended.
"""

import os
import signal

signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
