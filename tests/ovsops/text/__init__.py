"""Tests of ovsops.text."""
