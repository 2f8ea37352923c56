"""Code of the operator's own in our process: what is called with what, and what its answers mean."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any

import pytest

from mtaq.config.hooks import PythonCode
from mtaq.hooks import Client, Message, Recipient, Sender, accept, drop, reject
from mtaq.hooks.ports import HookFailure, Said
from mtaq.hooks.python import PythonHook
from mtaq.hooks.threads import Threads
from mtaq.model.decision import Decision
from mtaq.model.errors import ConfigError
from tests.unit.hooks.test_answer import MESSAGE, SESSION

CLIENT = Client("192.0.2.1", 4711, "client.example", False)
RECIPIENT = {**SESSION, "recipient": "b@example.net"}


class Everything:
    """A hook with all three methods, one of them async."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.closed = False

    def sender(self, sender: Sender) -> bool:
        self.seen.append((sender, threading.current_thread().name))
        return sender.envelope != "spam@example.org"

    async def recipient(self, recipient: Recipient) -> Decision:
        self.seen.append((recipient, threading.current_thread().name))
        return reject("unknown", code=550, status="5.1.1")

    def message(self, message: Message) -> None:
        self.seen.append(message)
        message["tags"] = ["seen"]

    def close(self) -> None:
        self.closed = True


def callable_hook(kind: str, data: Any) -> dict[str, Any]:
    return {"action": "accept", "text": f"{kind} {type(data).__name__}"}


async def async_step(message: Message) -> Decision:
    await asyncio.sleep(0)
    return drop() if "spam" in message.email()["Subject"] else accept()


class Caller:
    async def __call__(self, kind: str, data: Any) -> bool:
        return kind != "recipient"


instance = Everything()
no_hook = 42


def raises(message: Message) -> None:
    raise ValueError(f"no {message.envelope}")


def leaves(message: Message) -> None:
    sys.exit(0)


async def leaves_async(message: Message) -> None:
    sys.exit(0)


def stops(message: Message) -> None:
    raise StopIteration


def opened(name: str, *, pipeline: bool = False, threads: int = 2) -> PythonHook:
    return PythonHook(PythonCode(__name__, name), pipeline=pipeline, threads=Threads(threads))


async def test_an_object_with_methods():
    """A class is instantiated, and each point calls the method of its name: plain ones in a thread, async ones here."""
    hook = opened("Everything")
    assert hook.points == {"sender", "recipient", "message"}
    assert await hook.ask("sender", SESSION) == Said("accept", True)
    assert await hook.ask("recipient", RECIPIENT) == Said("accept", reject("unknown", status="5.1.1"))
    found: Everything = hook._object
    assert found.seen == [
        (Sender(CLIENT, "a@example.org"), "mtaq-hook"),
        (Recipient(CLIENT, "a@example.org", "b@example.net"), threading.current_thread().name),
    ]
    await hook.close()
    assert found.closed


async def test_changes_in_place_count():
    """A method that changes the message and returns nothing has changed it, and not what others hold of it."""
    hook = opened("instance")
    said = await hook.ask("message", MESSAGE)
    assert said.value == {**MESSAGE, "tags": ["seen"]}
    assert "tags" not in MESSAGE


async def test_a_callable():
    """Anything else that can be called gets the point and its object."""
    hook = opened("callable_hook")
    assert hook.points == {"sender", "recipient", "message"}
    for point, data, kind in (("sender", SESSION, "Sender"), ("recipient", RECIPIENT, "Recipient")):
        assert (await hook.ask(point, data)).value["text"] == f"{point} {kind}"
    assert (await hook.ask("message", MESSAGE)).value["text"] == "message Message"


async def test_an_async_call_method():
    """An object whose ``__call__`` is async is awaited."""
    hook = opened("Caller")
    assert await hook.ask("sender", SESSION) == Said("accept", True)
    assert await hook.ask("recipient", RECIPIENT) == Said("accept", False)


async def test_steps_of_a_pipeline():
    """A step is a function of the message, or an object's method ``message``."""
    step = opened("async_step", pipeline=True)
    assert step.points == {"pipeline"}
    assert (await step.ask("pipeline", MESSAGE)).value == MESSAGE
    assert (await step.ask("pipeline", {**MESSAGE, "mime": "Subject: spam\r\n\r\n"})).value == drop()
    assert (await opened("Everything", pipeline=True).ask("pipeline", MESSAGE)).value["tags"] == ["seen"]


@pytest.mark.parametrize(("name", "error"), [("raises", ValueError), ("leaves", HookFailure), ("stops", HookFailure)])
async def test_exceptions_come_out(name, error):
    """What the code raises is for the caller to handle; what would end the process is an ordinary failure."""
    with pytest.raises(error):
        await opened(name, pipeline=True).ask("pipeline", MESSAGE)


async def test_exit_in_a_coroutine():
    """``sys.exit()`` in a coroutine ends that call and not the worker."""
    with pytest.raises(HookFailure):
        await opened("leaves_async", pipeline=True).ask("pipeline", MESSAGE)


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("no_such_module_anywhere", "x"),
        (__name__, "missing"),
        (__name__, "Everything.missing"),
        (__name__, "no_hook"),
        (__name__, "Client"),
    ],
)
def test_what_cannot_be_loaded(module, name):
    """A module, an object or a class that is not usable is a mistake in the configuration."""
    with pytest.raises(ConfigError, match=name):
        PythonHook(PythonCode(module, name), pipeline=False, threads=Threads(1))


@pytest.mark.parametrize("source", ["raise RuntimeError('no')", "import sys; sys.exit(3)", "def broken(:"])
def test_a_module_that_fails_while_it_is_imported(source, tmp_path, monkeypatch):
    """Whatever a module does when it is imported, the configuration is what is wrong."""
    name = f"broken_{tmp_path.name}".replace("-", "_")
    (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=name):
        PythonHook(PythonCode(name, "x"), pipeline=False, threads=Threads(1))


def test_message_content():
    """A message's content is bytes in both of its forms, and can be replaced."""
    message = Message.of(MESSAGE)
    assert message.content == b"Subject: x\r\n\r\nhello\r\n"
    assert message.email()["Subject"] == "x"
    message.content = b"\xff"
    assert (message.get("mime"), message["mime-base64"]) == (None, "/w==")
    message.recipients = ["c@example.net"]
    message.recipients.append("d@example.net")
    assert message["recipients"] == ["c@example.net", "d@example.net"]
    assert MESSAGE["recipients"] == ["b@example.net", "c@example.net"]
