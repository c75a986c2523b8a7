"""Training: recipes and callbacks."""
