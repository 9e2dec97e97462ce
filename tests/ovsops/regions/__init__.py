"""Boxes with names."""
