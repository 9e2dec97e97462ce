"""Tests of ovsops.backbones."""
