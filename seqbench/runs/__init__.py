"""Keep a run on disk: its identity, lock, events and record. Nothing here needs torch."""
