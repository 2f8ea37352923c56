"""Builds everything from the settings, and starts and stops it in order.

The only place that knows every room. A worker is either a reception or a delivery; both need the queues, which the
supervisor has declared before they are told so.
"""
