"""Trackers that people look at runs with: `tracker=wandb`, or several: `tracker=[wandb,mlflow]`.

None is needed, and none can harm a run: what goes wrong in one is said once, and the run goes on
without it.
"""
