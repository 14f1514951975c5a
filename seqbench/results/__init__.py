"""From the records of runs to tables that one can believe. No torch, no Hydra."""
