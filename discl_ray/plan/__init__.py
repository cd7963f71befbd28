"""What to make: which images are hard, with which prompts, at which λ."""
