"""Boxes with names: detections recalibrated, gated by presence, calibrated, captioned. Tensors in, tensors out."""
