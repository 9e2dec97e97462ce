"""Tests of ovsops.losses."""
