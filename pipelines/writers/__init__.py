"""Files in formats other tools read."""
