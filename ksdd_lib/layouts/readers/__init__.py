"""One reader a file: each knows one way in which pictures and their labels lie in a folder."""
