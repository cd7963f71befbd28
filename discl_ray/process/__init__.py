"""This process: how it was called, and how it ends."""
