"""Tests of ovsops.masks."""
