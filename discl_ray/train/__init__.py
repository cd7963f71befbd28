"""Training on tables: the image table, augmentation, models, losses, the epoch loop, and the Ray Train edge."""
