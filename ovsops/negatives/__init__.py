"""Captions made wrong in one attribute or more, so that a model that sees only texts cannot tell which is right."""
