#!/usr/bin/env python3
"""Pass every received message on to delivery: the smallest useful consumer, to be copied and changed.

Runs until SIGINT or SIGTERM, then finishes the message at hand and exits 0.
"""

from __future__ import annotations

import argparse
import asyncio
import json

from mtaq.client import address_from_environment, connect


async def run(address: str, inbox: str, outbox: str, *, show: bool) -> None:
    """Move messages from *inbox* to *outbox*; *show* prints the whole JSON of each."""
    async with connect(address) as queues:
        queues.stop_on_signals()
        async for message in queues.consume(inbox, prefetch=100):
            async with message:
                # Here is the place to look at the message, to change it, or to send it elsewhere:
                # message["headers"] = {"prepend": {"X-Passed-On": "yes"}}
                await queues.publish(outbox, message)
                line = (
                    json.dumps(dict(message)) if show else f"{message.get('message-id', '')}: to <{message.recipient}>"
                )
                print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Pass every message of the inbox queue on to the outbox queue.")
    parser.add_argument("--address", help="amqp://… or embedded:///…; else MTAQ_RABBITMQ_ADDRESS (or …_FILE)")
    parser.add_argument("--inbox", default="inbox", help="queue to take from (default: %(default)s)")
    parser.add_argument("--outbox", default="outbox", help="queue to put into (default: %(default)s)")
    parser.add_argument("--show", action="store_true", help="print the JSON of each message")
    chosen = parser.parse_args()
    asyncio.run(run(chosen.address or address_from_environment(), chosen.inbox, chosen.outbox, show=chosen.show))


if __name__ == "__main__":
    main()
