"""What operators change while mtaq runs: local addresses, blocked networks, names of source addresses."""

from __future__ import annotations

from mtaq.state.database import Database, StateUnavailable
from mtaq.state.entries import Block, LocalAddress, Source
from mtaq.state.state import State, open_state

__all__ = ["Block", "Database", "LocalAddress", "Source", "State", "StateUnavailable", "open_state"]
