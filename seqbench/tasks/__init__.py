"""The tasks: where batches, losses, metrics and baselines come from."""
