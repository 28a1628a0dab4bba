"""Curves, pictures and words about stored results, and one HTML report."""
