"""Tests of ovsops.mapper."""
