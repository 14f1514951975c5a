"""Turn the records of runs into tables, plots and reports; import neither torch nor Hydra."""
