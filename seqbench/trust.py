"""What a configuration that came with a run folder may have built."""

from collections.abc import Sequence
from typing import Any

from seqbench.errors import ConfigError
from seqbench.signatures import located

# Code that a configuration found in a run folder may name: what runs are made of, and nothing else,
# because a command of ours can do harm too.
TRUSTED = ("seqbench.models", "seqbench.tasks", "seqbench.training", "torch.optim")


def trust(config: dict[str, Any], also: Sequence[str] = ()) -> None:
    """Refuse a configuration that came with a run folder and names code that is not trusted.

    Args:
        config: from the folder.
        also: packages that the user trusts too.

    Raises:
        ConfigError: something else than ours, torch.optim's or `also` is named.
    """
    trusted = (*TRUSTED, *also)

    def is_trusted(name: str) -> bool:
        return any(name == prefix or name.startswith(f"{prefix}.") for prefix in trusted)

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            target = value.get("_target_")
            if target is not None:
                # The spelling decides what is imported, the object found what is built.
                found = located(target, "a node") if is_trusted(str(target)) else None
                if not is_trusted(str(getattr(found, "__module__", ""))):
                    raise ConfigError(f"the run names {target}: add --trust {target} to build it")
            for item in value.values():
                walk(item)
        elif isinstance(value, str) and ("${" in value or value == "???"):
            # What a run keeps is resolved, and whole. Hydra would resolve this when it builds: it
            # could read the environment, or turn into a node that nobody has judged.
            raise ConfigError(f"the run's configuration refers to something outside: {value!r}")
        elif isinstance(value, list):
            for item in value:
                walk(item)

    walk(config)
