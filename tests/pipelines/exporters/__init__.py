"""Tests of exports of labelled runs."""
