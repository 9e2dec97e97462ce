"""Training samples: what they hold, which are kept, and which split each goes to."""
