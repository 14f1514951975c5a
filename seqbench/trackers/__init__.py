"""Log runs to experiment trackers: `tracker=wandb`, or several: `tracker=[wandb,mlflow]`.

Trackers are optional and cannot fail a run: on its first error a tracker is disabled with one
warning, and the run continues.
"""
