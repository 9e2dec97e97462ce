"""The miniature world: drawn scenes with exact masks, attributes and captions in English and Chinese."""
