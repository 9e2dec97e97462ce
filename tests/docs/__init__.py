"""Pages: their commands, their paths, and what is generated."""
