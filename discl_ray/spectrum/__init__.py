"""The seam between making images and training on them."""
