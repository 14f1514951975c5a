"""seqbench: which sequence model is better on which task, and can one believe it?"""

__version__ = "0.1.0"
