"""Images in memory-mapped files."""
