"""Scores of test surfaces, and everything computed from the stored scores."""
