"""Measure the speed of training steps: of seqbench, of plain PyTorch, and of the machine."""
