"""A client that says exactly what a test wants said, byte for byte."""

from __future__ import annotations

import socket
import ssl


class Wire:
    """One connection to a server on loopback; replies are read whole."""

    def __init__(self, port: int, *, source_ip: str = "127.0.0.1", begin: bytes = b"", timeout_s: float = 60.0) -> None:
        """Connect from *source_ip*, say *begin* at once, and read the first reply."""
        self._sock = socket.create_connection(("127.0.0.1", port), timeout_s, (source_ip, 0))
        self._sock.sendall(begin)
        self._file = self._sock.makefile("rb")
        self.greeting = self.reply()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._file.close()
        self._sock.close()

    def send(self, data: bytes) -> None:
        """Send *data* and nothing else."""
        self._sock.sendall(data)

    def reply(self) -> str:
        """Read one reply, its lines joined by LF; empty when the server closed."""
        lines: list[str] = []
        while True:
            line = self._file.readline()
            if not line:
                return "\n".join(lines)
            lines.append(line.decode("utf-8", "replace").rstrip("\r\n"))
            if line[3:4] != b"-":
                return "\n".join(lines)

    def say(self, line: str | bytes) -> str:
        """Send a command and return its reply."""
        self.send((line.encode() if isinstance(line, str) else line) + b"\r\n")
        return self.reply()

    def start_tls(self) -> None:
        """Say STARTTLS and go on inside TLS, whoever the server is."""
        answer = self.say("STARTTLS")
        assert answer.startswith("220"), answer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self._file.close()
        self._sock = context.wrap_socket(self._sock)
        self._file = self._sock.makefile("rb")

    def data(self, content: bytes) -> str:
        """Send *content* by DATA, dots doubled; it must be empty or end in CRLF. Return the final reply."""
        start = self.say("DATA")
        assert start.startswith("354"), start
        stuffed = content.replace(b"\r\n.", b"\r\n..")
        self.send((b"." if content.startswith(b".") else b"") + stuffed + b".\r\n")
        return self.reply()

    def bdat(self, content: bytes, chunk_bytes: int = 100_000) -> str:
        """Send *content* by BDAT in chunks; return the last reply."""
        position = 0
        while True:
            chunk = content[position : position + chunk_bytes]
            position += len(chunk)
            last = position >= len(content)
            self.send(f"BDAT {len(chunk)}{' LAST' if last else ''}\r\n".encode() + chunk)
            reply = self.reply()
            if last or not reply.startswith("250"):
                return reply
