"""Maths on patch tokens: outliers, repair, aggregation, graphs and their spectra. Tensors in, tensors out."""
