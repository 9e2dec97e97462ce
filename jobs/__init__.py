"""Command line, recipes and one entry point per verb."""
