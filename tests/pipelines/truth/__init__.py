"""Tests of pipelines.truth."""
