"""C++ of ours, compiled where it runs, for the processor it runs on.

It takes a compiler (`c++`, or what the variable CXX names) and a few seconds the first time; what
comes out is kept in the user's cache folder. Whoever calls it has a slower way for where there is
no compiler.
"""

import ctypes
import hashlib
import os
import shlex
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

import pooch

# `native`: all vector instructions of this processor. Not every compiler knows OpenMP, and without
# it there is one thread.
FLAGS = ("-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math")
LIBRARY = ("-fno-exceptions", "-shared", "-fPIC")
SECONDS = 120


class NotCompiled(Exception):
    """Why there is no compiled code."""


def library(source: Path) -> ctypes.CDLL:
    """A C++ file's functions.

    Raises:
        NotCompiled: it could not be compiled, or not be loaded.
    """
    found = outcome(source)
    if isinstance(found, NotCompiled):
        raise found
    return found


@cache
def outcome(source: Path) -> ctypes.CDLL | NotCompiled:
    """What became of a source, kept also where it failed: a layer asks at every call."""
    for flags in ((*FLAGS, "-fopenmp"), FLAGS):
        try:
            return loaded(source, flags)
        except NotCompiled as error:
            reason = error
    return reason


def loaded(source: Path, flags: Sequence[str]) -> ctypes.CDLL:
    """The library, from the cache where it is there."""
    # The source with what it includes, and all that the compiler says of itself and the processor:
    # another machine may have the same home.
    text = compiler(*flags, "-E", "-dD", str(source))
    key = hashlib.sha256(text + repr(flags).encode()).hexdigest()[:16]
    kept = Path(pooch.os_cache("seqbench")) / "compiled" / f"{source.stem}-{key}.so"
    with suppress(OSError):
        return ctypes.CDLL(str(kept))
    with suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
    writable = os.access(f"{kept.parent}/.", os.W_OK)  # and a folder; never raises
    try:
        with tempfile.TemporaryDirectory(dir=kept.parent if writable else None) as own:
            made = Path(own) / kept.name
            compiler(*flags, *LIBRARY, str(source), "-o", str(made))
            found = ctypes.CDLL(str(made))
            with suppress(OSError):
                made.replace(kept)
            return found
    except OSError as error:
        raise NotCompiled(str(error)) from error


def compiler(*arguments: str) -> bytes:
    """Run the compiler; what it prints."""
    command = [*shlex.split(os.environ.get("CXX") or "c++"), *arguments]
    try:
        return subprocess.run(
            command, capture_output=True, check=True, timeout=SECONDS, stdin=subprocess.DEVNULL
        ).stdout
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        worst = next((line for line in said if "error" in line), said[0])
        raise NotCompiled(f"{command[0]} failed: {worst}") from error
    except (OSError, subprocess.SubprocessError) as error:
        raise NotCompiled(f"{command[0]} did not run: {error}") from error
