"""What contracts are made of.

A contract is a function that does nothing where it holds, and raises `Broken` with a plain sentence
where not, or `NotAsked` where it does not apply. `seqbench check` tries them on a person's own
model or task, and our tests on ours.
"""

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any


class Broken(Exception):
    """A contract does not hold; the text says how."""


class NotAsked(Exception):
    """A contract is not for what was to be tried; the text says why."""


@dataclass(frozen=True)
class Result:
    """What came of trying one contract.

    Attributes:
        name: what must hold, in a few words.
        passed: whether it holds; `None`: it is not asked.
        message: why not; or a remark, or nothing.
    """

    name: str
    passed: bool | None
    message: str = ""


def tried(contract: Callable[..., None], *args: Any) -> tuple[bool | None, str]:
    """Whether a contract holds, `None` if it is not asked; and why not, or why it is not asked."""
    try:
        contract(*args)
    except NotAsked as reason:
        return None, str(reason)
    except Broken as broken:
        return False, str(broken)
    except Exception as error:
        return False, said(error)
    return True, ""


def said(error: Exception) -> str:
    """An exception in one line, with the last place of the tried code that it came through."""
    line = f"raised {type(error).__name__}: {error}".split("\n")[0].rstrip(": ")
    places = [frame for frame in extract_tb(error.__traceback__) if not library(frame.filename)]
    return f"{line} ({Path(places[-1].filename).name}:{places[-1].lineno})" if places else line


def library(file: str) -> bool:
    """Whether it is a file of seqbench, of an installed package or of Python."""
    ours, pythons = Path(__file__).parents[1], sysconfig.get_path("stdlib")
    installed = "site-packages" in file or file.startswith("<")
    return installed or any(Path(file).is_relative_to(folder) for folder in (ours, pythons))


def listed(names: list[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
