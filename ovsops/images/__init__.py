"""Bytes to pixels, and pixels to windows."""
