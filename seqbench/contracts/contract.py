"""What contracts are made of.

A contract is a function that does nothing where it holds, and raises `Broken` with a plain sentence
where not. `seqbench check` tries them on a person's own model or task, and our tests on ours.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


class Broken(Exception):
    """A contract does not hold; the text says how."""


@dataclass(frozen=True)
class Result:
    """What came of trying one contract.

    Attributes:
        name: what must hold, in a few words.
        passed: whether it holds.
        message: why not; or a remark, or nothing.
    """

    name: str
    passed: bool
    message: str = ""


def failure(contract: Callable[..., None], *args: Any) -> str:
    """Why a contract does not hold; empty where it does."""
    try:
        contract(*args)
    except Broken as broken:
        return str(broken)
    except Exception as error:
        return said(error)
    return ""


def said(error: Exception) -> str:
    """An exception in one line."""
    return f"raised {type(error).__name__}: {error}".split("\n")[0].rstrip(": ")


def listed(names: list[str]) -> str:
    """Names in a sentence, the first few of many."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
