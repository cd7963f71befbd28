"""Predictions become numbers here; only `held_out` opens the test images."""
