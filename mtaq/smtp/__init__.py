"""RFC 5321 without I/O, both sides."""
