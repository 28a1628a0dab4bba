"""How pictures and their labels lie in a folder, and how they become item folders."""
