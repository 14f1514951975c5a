"""Define the tasks, which provide batches, losses, metrics and baselines."""
