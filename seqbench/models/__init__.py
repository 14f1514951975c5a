"""The models, one file a family. They know `seqbench.spec` and torch only."""
