"""Define the models, one file per family. They depend on `seqbench.spec`, not on any task."""
