"""Two labelled runs compared."""
