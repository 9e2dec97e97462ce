"""The review queue: which labels a person should look at first, under a budget, and why."""
