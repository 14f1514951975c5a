"""Check the contracts that every model and every task must satisfy."""
