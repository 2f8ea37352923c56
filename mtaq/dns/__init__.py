"""The resolver and its cache."""
