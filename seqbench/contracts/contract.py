"""Define what a contract is and run one.

A contract is a function that returns if a model or task satisfies it, raises `ContractViolation`
with a one-sentence reason if not, and raises `NotApplicable` if it does not apply. `seqbench check`
runs the contracts on a user's model or task; the tests run them on those of seqbench.
"""

import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb
from typing import Any

from seqbench.errors import typed_line


class ContractViolation(Exception):
    """Raised if a contract is violated; the message says how."""


class NotApplicable(Exception):
    """Raised if a contract does not apply; the message says why."""


@dataclass(frozen=True)
class Result:
    """The result of one contract.

    Attributes:
        name: the contract, in a few words.
        passed: true if it is satisfied, false if it is violated; `None`: it does not apply.
        message: why it is violated or does not apply, or a remark; may be empty.
    """

    name: str
    passed: bool | None
    message: str = ""


def tried(contract: Callable[..., None], *args: Any) -> tuple[bool | None, str]:
    """Run a contract and return `(passed, message)` as in `Result`.

    Any exception other than `NotApplicable` counts as a violation.
    """
    try:
        contract(*args)
    except NotApplicable as reason:
        return None, str(reason)
    except ContractViolation as broken:
        return False, str(broken)
    except Exception as error:
        return False, said(error)
    return True, ""


def said(error: Exception) -> str:
    """Return an exception in one line, with its innermost frame in the user's code, if any."""
    line = f"raised {typed_line(error)}"
    places = [frame for frame in extract_tb(error.__traceback__) if not library(frame.filename)]
    return f"{line} ({Path(places[-1].filename).name}:{places[-1].lineno})" if places else line


def library(file: str) -> bool:
    """Return True if the file belongs to seqbench, an installed package or Python itself."""
    ours, pythons = Path(__file__).parents[1], sysconfig.get_path("stdlib")
    installed = "site-packages" in file or file.startswith("<")
    return installed or any(Path(file).is_relative_to(folder) for folder in (ours, pythons))


def listed(names: list[str]) -> str:
    """Return the names joined by commas: the first four, and the number of the others."""
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more
