"""Run the seqbench command in a process forked from one that has imported torch.

Such a process starts in a tenth of a second, where importing torch takes seconds, and shares
nothing with the tests that a new process would not share with them. The fork server of a sweep's
jobs is forked from the command in turn.
"""

import multiprocessing
import multiprocessing.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from patience import PATIENCE

from seqbench.launch.local import WARM

SPAWN = multiprocessing.util.spawnv_passfds
CONTEXT = multiprocessing.get_context("forkserver")


def forked(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a function of a module in a forked process."""
    CONTEXT.set_forkserver_preload([*WARM, "warm"])
    paths = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    # A fork server does not know the paths of its parent before Python 3.13.
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths))):
        ensure_running()
    process = CONTEXT.Process(target=_warm, args=(target, *arguments))
    process.start()
    return process


def _warm(target: Callable[..., Any], *arguments: Any) -> None:
    multiprocessing.util.spawnv_passfds = _spawn
    target(*arguments)


def _spawn(path: str, arguments: Sequence[str], descriptors: Sequence[int]) -> int:
    """Start a Python process of multiprocessing; fork it if it is a fork server."""
    if "forkserver" not in arguments[-1]:
        return SPAWN(path, arguments, descriptors)
    if pid := os.fork():
        return pid
    try:
        # As seqbench.launch.fork_server does, which is imported already.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_DFL)
        for descriptor in {*range(3, 4096)} - {*descriptors}:  # open or not
            with suppress(OSError):
                os.close(descriptor)
        exec(arguments[-1], {})
    finally:
        os._exit(1)


class Command:
    """A seqbench command under way.

    Args:
        words: the words after `seqbench`.
        cwd: its current folder.
        environment: its environment variables.
        said: an empty folder for what it prints.
    """

    def __init__(
        self, words: tuple[str, ...], cwd: Path, environment: Mapping[str, str], said: Path
    ) -> None:
        self.words, self.said = words, said
        self.process = forked(_main, words, cwd, dict(environment), said)

    def wait(self, seconds: float = PATIENCE) -> subprocess.CompletedProcess[str]:
        """Wait for the end of the command and return its exit code and what it printed."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, f"still running: {self.words}"
        out, err = ((self.said / name).read_text(encoding="utf-8") for name in ("out", "err"))
        return subprocess.CompletedProcess(self.words, self.process.exitcode, out, err)


def _main(words: tuple[str, ...], cwd: Path, environment: dict[str, str], said: Path) -> None:
    from seqbench.cli.main import main

    os.setsid()  # signals to its process group reach no other process of the tests
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(said / name, os.O_WRONLY | os.O_CREAT, 0o644), descriptor)
    sys.argv = ["seqbench", *words]
    main()
