"""Tests of pipelines.report."""
