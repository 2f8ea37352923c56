#!/usr/bin/env python3
"""A web service for hooks and pipelines, to be copied and changed. Needs nothing but Python.

    smtp-hook: http://127.0.0.1:8025/
    smtp-pipeline: http://127.0.0.1:8025/

``hook`` in the JSON says what is asked. A real service answers over HTTPS, or on this machine only as this one does.
"""

from __future__ import annotations

import argparse
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any] | None]


def decide(asked: dict[str, Any]) -> Answer:
    """Return HTTP status and answer: 2xx accepts unless the JSON says otherwise, 403 rejects."""
    if asked["hook"] == "sender" and asked["envelope"] == "":
        return 403, {"text": "no bounces here"}
    if asked["hook"] == "recipient" and asked["recipient"].startswith("full@"):
        return 200, {"action": "defer", "code": 452, "status": "4.2.2", "text": "mailbox full"}
    if asked["hook"] == "pipeline" and "unwanted" in asked.get("tags", []):
        return 200, {"action": "drop"}
    if asked["hook"] == "pipeline":
        return 200, {"changes": {"priority": 5}}
    return 204, None


class Handler(BaseHTTPRequestHandler):
    """One question."""

    def do_POST(self) -> None:
        """Read the JSON, answer."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status, answer = decide(asked)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        if answer is not None:
            self.wfile.write(json.dumps(answer).encode())


def main() -> None:
    parser = argparse.ArgumentParser(description="Answer mtaq's hooks and pipelines over HTTP, on this machine.")
    parser.add_argument("--port", type=int, default=8025, help="TCP port (default: %(default)s; 0 for any)")
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Handler)
    print(f"listening on port {server.server_port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
