"""A run goes to Google Drive while it works, and comes back whole."""
