"""What happened, in words and numbers: the event vocabulary, log sinks, metrics."""
