"""Look up the defaults of what a config builds; those of torch's optimizers are frozen.

An option at its default does not count for a run's id. If the ids followed the installed torch, a
changed default would change them, or give two different runs the same one. So the defaults of
torch's optimizers are those of torch 2.13: for the id, and for an option that a config leaves out.
"""

import inspect
from functools import cache
from typing import Any

# Of all optimizers, unless they have another default below.
COMMON: dict[str, Any] = {
    "betas": [0.9, 0.999],
    "eps": 1e-8,
    "weight_decay": 0,
    "decoupled_weight_decay": False,
    "amsgrad": False,
    "maximize": False,
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
}
# Those that train any model. LBFGS, Muon and SparseAdam do not.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "ASGD": {"lr": 0.01, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6},
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6},
    "Adafactor": {"lr": 0.01, "beta2_decay": -0.8, "eps": [None, 1e-3], "d": 1.0},
    "Adagrad": {"lr": 0.01, "lr_decay": 0, "initial_accumulator_value": 0, "eps": 1e-10},
    "Adam": {"lr": 1e-3},
    "AdamW": {"lr": 1e-3, "weight_decay": 0.01},
    "Adamax": {"lr": 2e-3},
    "NAdam": {"lr": 2e-3, "momentum_decay": 4e-3},
    "RAdam": {"lr": 1e-3},
    "RMSprop": {"lr": 0.01, "alpha": 0.99, "momentum": 0, "centered": False},
    "Rprop": {"lr": 0.01, "etas": [0.5, 1.2], "step_sizes": [1e-6, 50]},
    "SGD": {"lr": 1e-3, "momentum": 0, "dampening": 0, "nesterov": False},
}


@cache
def signature_defaults(target: str) -> dict[str, Any]:
    """Return the defaults of the parameters of the class or function that `target` names."""
    from hydra.utils import get_object  # here, because listing runs must not wait for Hydra

    parameters = inspect.signature(get_object(target)).parameters.values()
    # A config has lists where Python has tuples.
    return {
        p.name: list(p.default) if isinstance(p.default, tuple) else p.default
        for p in parameters
        if p.default is not p.empty
    }


def frozen_defaults(target: str) -> dict[str, Any] | None:
    """Return the frozen defaults of an optimizer of torch; `None` for other targets.

    An optimizer that is not in `OPTIMIZERS` has no frozen defaults: all its options count.
    """
    if not target.startswith("torch.optim."):
        return None
    own = OPTIMIZERS.get(target.rpartition(".")[2])
    return {} if own is None else COMMON | own


def changed_defaults(target: str) -> dict[str, Any]:
    """Return the frozen defaults of an optimizer for which the installed torch has other values."""
    frozen = frozen_defaults(target)
    here = signature_defaults(target) if frozen else {}
    return {k: v for k, v in (frozen or {}).items() if here.get(k, v) != v}


def defaults_for_ids(target: str) -> dict[str, Any]:
    """Return the defaults that do not count for an id."""
    frozen = frozen_defaults(target)
    return signature_defaults(target) if frozen is None else frozen
