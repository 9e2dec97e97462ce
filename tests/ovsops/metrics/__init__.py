"""Tests of ovsops.metrics."""
