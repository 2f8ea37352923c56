"""Logging in at a smarthost: by TLS alone, and nobody is shown the password."""

from __future__ import annotations

import ssl
from base64 import b64encode
from typing import Any

import pytest
import trustme

from tests.support.delivery import World, options, outbox_json
from tests.support.fake_mx import FakeMx, Script

SECRET = "pa-ss-word"
PLAIN = b64encode(f"\0ada\0{SECRET}".encode()).decode()


@pytest.fixture(scope="module")
def context() -> ssl.SSLContext:
    """TLS for the host."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(made)
    return made


@pytest.fixture
def submission(context):
    """A host that lets in whoever logs in by TLS."""
    ehlo = b"250-mx.test\r\n250-PIPELINING\r\n250-STARTTLS\r\n250 AUTH LOGIN PLAIN\r\n"
    return lambda **replies: Script(tls=context, replies={"EHLO": ehlo, "AUTH": b"235 2.7.0 welcome\r\n", **replies})


def told(world: World) -> str:
    """Everything that was published or logged."""
    queues: Any = world.queues
    published = [item.parcel.body for name in ("results", "success", "failure") for item in queues.stored[name]]
    return repr(published) + repr(world.lines.records)


async def test_the_smarthost_of_the_configuration_wants_a_login(submission):
    """STARTTLS comes first although `optional` is what holds for others; the result names the mechanism."""
    async with FakeMx(submission()) as mx:
        changes = {"smarthost": "127.0.0.1", "smarthost_port": mx.port, "smarthost_username": "ada"}
        around = World(options=options(smarthost_password=SECRET, delivery_security="optional", **changes))
        async with around as world:
            await world.deliver(outbox_json())
            await world.deliver(outbox_json("cem@elsewhere.example"))
            assert [mail.secure for mail in mx.mail] == [True, True]
            [dialog] = mx.dialogs
            assert dialog[:4] == ["EHLO out.test", "STARTTLS", "EHLO out.test", f"AUTH PLAIN {PLAIN}"]
            assert [item.json["results"][0]["authentication"] for item in world.queues.stored["success"]] == [
                "PLAIN", "PLAIN",
            ]  # fmt: skip
            assert SECRET not in told(world)


async def test_a_message_brings_its_own_login(submission):
    """Another user has another connection; the result keeps the user, and hides the password."""
    async with FakeMx(submission()) as mx, World() as world:
        for user in ("ada", "eve"):
            smarthost = {"hostname": "127.0.0.1", "port": mx.port, "username": user, "password": SECRET}
            await world.deliver(outbox_json(smarthost=smarthost))
        assert len(mx.mail) == len(mx.dialogs) == 2
        shown = [item.json["smarthost"] for item in world.queues.stored["success"]]
        assert [(each["username"], each["password"]) for each in shown] == [("ada", "***"), ("eve", "***")]
        assert SECRET not in told(world)


async def test_a_retry_keeps_the_password(submission):
    """What goes back to the outbox needs it; the copy for the queue of retries does not."""
    async with FakeMx(submission(MAIL=b"451 4.3.0 later\r\n")) as mx, World() as world:
        smarthost = {"hostname": "127.0.0.1", "port": mx.port, "username": "ada", "password": SECRET}
        await world.deliver(outbox_json(smarthost=smarthost))
        [again], [copy] = world.queues.stored["outbox"], world.queues.stored["retry"]
        assert again.json["smarthost"]["password"] == SECRET
        assert copy.json["smarthost"]["password"] == "***"


async def test_without_tls_nothing_is_said(submission):
    """The message waits for better times."""
    script = Script(replies={"EHLO": b"250-mx.test\r\n250 AUTH PLAIN\r\n"})
    async with FakeMx(script) as mx, World() as world:
        smarthost = {"hostname": "127.0.0.1", "port": mx.port, "username": "ada", "password": SECRET}
        await world.deliver(outbox_json(smarthost=smarthost))
        assert not any(line.startswith("AUTH") for dialog in mx.dialogs for line in dialog)
        assert world.result("retry")["state"] == "starttls"


@pytest.mark.parametrize("reply", [b"535 5.7.8 no\r\n", b"454 4.7.0 later\r\n"])
async def test_a_refused_login_returns_no_mail(submission, reply):
    """Credentials are the operator's to mend."""
    async with FakeMx(submission(AUTH=reply)) as mx, World() as world:
        smarthost = {"hostname": "127.0.0.1", "port": mx.port, "username": "ada", "password": SECRET}
        await world.deliver(outbox_json(smarthost=smarthost))
        item = world.result("retry")
        assert (item["state"], item["result"], item["code"], item["category"]) == (
            "auth", "error", int(reply[:3]), "auth",
        )  # fmt: skip


async def test_the_login_of_the_configuration_is_not_for_the_hosts_of_messages(submission):
    """Whoever names a host of his own does not get our password."""
    async with FakeMx(submission()) as mx:
        changes = {"smarthost": "other.test", "smarthost_username": "ada", "smarthost_password": SECRET}
        async with World(options=options(**changes)) as world:
            await world.deliver(outbox_json(smarthost={"hostname": "127.0.0.1", "port": mx.port}))
            assert not any(line.startswith("AUTH") for line in mx.dialogs[0])


@pytest.mark.parametrize(
    "heard", [SECRET, PLAIN, f"AUTH PLAIN {PLAIN}", f"{PLAIN[:20]} {b64encode(SECRET.encode()).decode()}"]
)
@pytest.mark.parametrize("reply", ['500 5.5.1 Command unrecognized: "%s"', "%s", "235%s", "999 %s"])
async def test_a_host_that_repeats_the_password_is_not_quoted(submission, reply, heard):
    """Many answer what they do not understand with what they heard."""
    async with FakeMx(submission(AUTH=(reply % heard).encode() + b"\r\n")) as mx, World() as world:
        smarthost = {"hostname": "127.0.0.1", "port": mx.port, "username": "ada", "password": SECRET}
        await world.deliver(outbox_json(smarthost=smarthost))
        assert world.result("retry")["state"] == "auth"
        told = str(
            [world.result("retry"), world.lines.records, [entry.data for entry in world.journal.entries.values()]]
        )
        for secret in (SECRET, PLAIN, b64encode(SECRET.encode()).decode()):
            assert secret not in told
