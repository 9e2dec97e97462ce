"""The only users of transformers: towers to features."""
