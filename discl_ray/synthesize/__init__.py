"""A run of phase 1."""
