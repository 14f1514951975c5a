"""Download datasets into the cache, verify them, and parse them into arrays and strings."""
