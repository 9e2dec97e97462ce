"""Model operators: images, text, masks, backbones and segmenters. No cluster, no HTTP."""
