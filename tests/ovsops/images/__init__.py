"""Tests of ovsops.images."""
