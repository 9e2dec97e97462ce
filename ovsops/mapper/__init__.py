"""The learned map from text space to patch space."""
