"""Open-vocabulary segmenters: maths per method, weights only in build."""
