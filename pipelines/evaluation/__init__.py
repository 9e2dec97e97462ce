"""Labelled runs against ground truth: counts of each image, figures with intervals, tables, plots and a page."""
