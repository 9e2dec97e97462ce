"""Rows, shards, stages, Ray Data, writers and the commit ledger."""
