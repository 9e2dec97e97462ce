"""Tests of ovsops.training."""
