"""Nouns: what mail is made of here. All frozen; no I/O."""
