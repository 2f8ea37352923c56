"""Sockets: listeners, TLS contexts, source addresses."""
