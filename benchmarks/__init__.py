"""Commands that measure; each prints one table that anyone can print again."""
