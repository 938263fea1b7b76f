"""What users bring: batches, loaders, data sets, models and checkpoints."""
