"""Samples of labels that people judge."""
