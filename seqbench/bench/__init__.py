"""Measuring speed: our training step, the same one done the plain way, the machine's ceilings."""
