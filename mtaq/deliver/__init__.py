"""From the outbox queue to a result."""
