"""One thin script for each step."""
