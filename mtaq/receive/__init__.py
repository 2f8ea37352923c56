"""From a connection to the inbox queue."""
