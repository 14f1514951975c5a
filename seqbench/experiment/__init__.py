"""Train and test what a config describes, and return the record. The public Python API.

from seqbench.config.compose import compose
from seqbench.experiment import run

record = run(compose(["model=tcn", "task=adding", "budget=quick"]))
print(record.score)
"""

from seqbench.experiment.single import run

__all__ = ["run"]
