"""Tests of ovsops.segmenters."""
