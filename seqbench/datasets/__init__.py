"""Where the bytes come from: mirrors, checksums, the cache, and parsing into arrays and strings."""
