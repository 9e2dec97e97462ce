"""Tests of ovsops.negatives."""
