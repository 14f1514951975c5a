"""`python -m seqbench`."""

from seqbench.cli.main import main

main()
