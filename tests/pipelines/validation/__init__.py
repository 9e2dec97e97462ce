"""The validator of training sets."""
