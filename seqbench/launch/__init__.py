"""Run sweeps and searches: plan their jobs, execute them on an engine, and collect results."""
