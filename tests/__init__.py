"""Tests; mirrors the three packages."""
