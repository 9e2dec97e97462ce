"""A labelled run in the formats of other tools, one file a format."""
