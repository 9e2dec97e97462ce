"""Tiny random checkpoints and drawn images."""
