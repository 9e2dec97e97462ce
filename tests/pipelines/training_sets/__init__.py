"""Training sets: building, cleaning, cutting."""
