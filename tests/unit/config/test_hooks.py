"""How the operator's own code is named."""

from __future__ import annotations

import os

import pytest

from mtaq.config import ConfigErrors, Settings, hooks, load
from mtaq.config.hooks import Executable, ParseFull, PythonCode, SanitizeHtml, WebService
from mtaq.config.render import render_effective


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("python://shop.mail:decide", PythonCode("shop.mail", "decide")),
        ("python://hook:Rules.strict", PythonCode("hook", "Rules.strict")),
        ("exec:///usr/local/bin/decide", Executable("/usr/local/bin/decide")),
        ("exec:///opt/with%20blank%2Cand%25", Executable("/opt/with blank,and%")),
        ("http://127.0.0.1:8080/hook", WebService("http://127.0.0.1:8080/hook")),
        ("https://user:p%40ss@[::1]/hook?key=1", WebService("https://user:p%40ss@[::1]/hook?key=1")),
        ("https://host", WebService("https://host")),
    ],
)
def test_hooks(text, value):
    """Each form of a hook is understood, and is a step of a pipeline as well."""
    assert hooks.hook(text) == value
    assert hooks.pipeline(text) == (value,)


def test_pipelines():
    """Steps stand in their order, the same one as often as it is written."""
    assert hooks.pipeline("") == ()
    assert hooks.pipeline("sanitize-html, parse-full ,sanitize-html=strict,exec:///a,sanitize-html") == (
        SanitizeHtml("basic"),
        ParseFull(),
        SanitizeHtml("strict"),
        Executable("/a"),
        SanitizeHtml("basic"),
    )


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "sanitize-html",
        "ftp://hunter2/",
        "python://hunter2",
        "python://:hunter2",
        "python://hunter2:",
        "python://a..hunter2:b",
        "python://hunter2:f()",
        "python://hunter2/x:f",
        "exec://hunter2",
        "exec://hunter2/x",
        "exec:///",
        "exec:///hunter2/",
        "exec:///hunter2?x",
        "exec:///hunter2#x",
        "exec:///hunter2%00",
        "exec:///hunter2%0A",
        "exec:/hunter2",
        "http://",
        "http://:80/hunter2",
        "http://u:hunter2@host:0/",
        "http://u:hunter2@host:port/",
        "http://u:hunter2@host:99999/",
        "http://u:hunter2@[::1/",
        "http://u:hunter2@host/a b",
        "http://u:hunter2@host/ä",
        "http://u:hunter2@host/#x",
        "http:hunter2",
    ],
)
def test_what_is_no_hook(text):
    """A hook of the wrong form is refused with what is expected, and never repeated: it may hold a password."""
    with pytest.raises(ValueError, match="expected") as caught:
        hooks.hook(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["sanitize-html=", "sanitize-html=all", "parse-full=1", "hunter2", "exec:///a,hunter2"]
)
def test_what_is_no_step(text):
    """A step that does not exist is refused with those that do."""
    with pytest.raises(ValueError, match="expected") as caught:
        hooks.pipeline(text)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://user:hunter2@host/hook", "http://user:***@host/hook"),
        ("https://user:hun@ter2@host/hook", "https://user:***@host/hook"),
        ("http://token@host/", "http://token@host/"),
        ("https://host/hook?key=hunter2", "https://host/hook?***"),
        ("https://u:hunter2@host/a?b=c@d:hunter2", "https://u:***@host/a?***"),
        ("sanitize-html=basic, http://u:hunter2@host/", "sanitize-html=basic,http://u:***@host/"),
        ("python://a.b:c,exec:///d/e,parse-full", "python://a.b:c,exec:///d/e,parse-full"),
        ("user:hunter2@host", "***"),
        ("HTTP://user:hunter2@host", "***"),
    ],
)
def test_masks_what_is_secret(text, shown):
    """Passwords and queries are masked, the rest can be read."""
    assert hooks.mask_hooks(text) == shown


def test_a_password_is_in_no_repr():
    """What holds a password does not print it."""
    service = hooks.hook("http://user:hunter2@host/hook?key=hunter2")
    assert "hunter2" not in repr(service)
    assert service.label == "http://user:***@host/hook?***"


def loaded(*overrides: str) -> Settings:
    """Load defaults and a command line."""
    return load(path=os.devnull, environ={}, overrides=[f"--{override}" for override in overrides])


@pytest.mark.parametrize(("text", "value"), [("10", 10), ("0.5", 0.5), ("5m", 300)])
def test_timeouts(text, value):
    """Fractions of a second are fine."""
    assert hooks.hook_timeout(text) == value


@pytest.mark.parametrize("text", ["0", "301", "6m", "-1", "", "x"])
def test_timeouts_that_no_client_would_wait_for(text):
    """Nobody waits longer than five minutes for an answer (RFC 5321 §4.5.3.2), or not at all."""
    with pytest.raises(ValueError, match="expected"):
        hooks.hook_timeout(text)


def test_a_port_of_its_own():
    """Hook, pipeline and time-out may differ from port to port."""
    settings = loaded(
        "smtp-port=25,587", "smtp-hook@587=python://a:b", "smtp-pipeline=parse-full", "smtp-hook-timeout=2"
    )
    assert settings.receive(25).smtp_hook is None
    assert settings.receive(587).smtp_hook == PythonCode("a", "b")
    assert settings.receive(587).smtp_pipeline == settings.receive(25).smtp_pipeline == (ParseFull(),)
    assert settings.receive(587).smtp_hook_timeout == 2


def test_config_show_hides_secrets():
    """``mtaq config show`` prints neither passwords nor queries."""
    secret = "http://user:hunter2@host/?key=hunter3"
    shown = render_effective(loaded(f"smtp-hook={secret}", f"smtp-pipeline=parse-full,{secret}"))
    assert "hunter" not in shown
    assert "smtp-pipeline: parse-full,http://user:***@host/?***" in shown


@pytest.mark.parametrize("key", ["smtp-hook", "smtp-pipeline", "smtp-hook@25"])
def test_programs_must_be_there(key, tmp_path):
    """A program that is missing, a folder or not executable is found when the configuration is read."""
    program = tmp_path / "program"
    for prepare in (lambda: None, program.mkdir, lambda: (program.rmdir(), program.write_text("#!/bin/sh\n"))):
        prepare()
        with pytest.raises(ConfigErrors, match=r"cannot be run.*; expected a program"):
            loaded(f"{key}=exec://{program}")
    program.chmod(0o755)
    assert loaded(f"{key}=exec://{program}")


def test_programs_of_a_closed_port_need_not_be_there():
    """What a port that is switched off would ask is not looked at."""
    assert loaded("smtp-port=25,26", "smtp-hook@26=exec:///nothing/there", "smtp-enabled@26=false")
