"""Training on tables: image table, augmentation, models, losses, epoch loop, and Ray Train."""
