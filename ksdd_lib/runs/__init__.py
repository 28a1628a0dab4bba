"""The run folder: one experiment's settings, data, owner and progress, and the way back to it."""
