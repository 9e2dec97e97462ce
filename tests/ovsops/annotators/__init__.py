"""Segmenter, detector and expert joined."""
