"""Maths on patch tokens."""
