"""Predictions become numbers here; `test_split` is the only code that opens the test images."""
