"""Numbers of the published implementations, and the checks that reproduce them."""
