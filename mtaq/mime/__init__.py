"""Header section and body as bytes."""
