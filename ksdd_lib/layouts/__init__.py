"""One reader for each way in which pictures and their labels lie in a folder."""
