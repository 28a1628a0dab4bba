"""Targets, augmentation, deterministic batches, checkpoints, and the loop that resumes exactly."""
