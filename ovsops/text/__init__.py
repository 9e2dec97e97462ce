"""Vocabularies, templates, prompts and their embeddings."""
