"""From file, environment and command line to settings, or to every mistake at once."""

from __future__ import annotations

import pytest

from mtaq.config import ConfigErrors, Settings, load
from mtaq.config.table import WITHOUT_EFFECT


@pytest.fixture
def loaded(tmp_path):
    """Load a file's text, an environment and a command line."""

    def call(text: str | bytes = "", environ=None, overrides=()) -> Settings:
        path = tmp_path / "mtaq.conf"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load(path=str(path), environ=environ or {}, overrides=overrides)

    return call


@pytest.fixture
def mistakes(loaded, tmp_path):
    """Load and return the lines of all mistakes, the file's folder left out."""

    def call(text: str | bytes = "", environ=None, overrides=()) -> list[str]:
        with pytest.raises(ConfigErrors) as caught:
            loaded(text, environ, overrides)
        return str(caught.value).replace(f"{tmp_path}/", "").splitlines()

    return call


def test_defaults_are_safe(loaded):
    """Without a word of the operator nobody may connect and nothing is lost when the broker restarts."""
    settings = loaded()
    assert not settings.receive(25).smtp_range.contains("127.0.0.1")
    assert settings.queues.rabbitmq_persistent
    assert settings.queues.rabbitmq_durable
    assert settings.queues.rabbitmq_inbox != settings.queues.rabbitmq_outbox
    assert not settings.deliver.delivery_allow_private
    assert not settings.warnings


def test_precedence(loaded):
    """The command line comes before the environment, that before the file, that before the default."""
    text = "smtp-timeout: 1\nsmtp-max-hops: 1\nsmtp-maxsize: 1\n"
    settings = loaded(
        text, {"MTAQ_SMTP_TIMEOUT": "2", "MTAQ_SMTP_MAX_HOPS": "2"}, ["--smtp-timeout=4", "--smtp-timeout=3"]
    )
    reception = settings.receive(25)
    assert (reception.smtp_timeout, reception.smtp_max_hops, reception.smtp_maxsize) == (3, 2, 1)
    assert reception.smtp_max_recipients == 1000


def test_origins_tell_where_each_value_came_from(loaded, tmp_path):
    """Every key's origin is known: default, file and line, environment, command line."""
    settings = loaded("\n\nsmtp-timeout: 1\n", {"MTAQ_SMTP_MAX_HOPS": "2"}, ["--smtp-range@25=10.0.0.0/8"])
    assert settings.origins["smtp-timeout"] == f"{tmp_path}/mtaq.conf:3"
    assert settings.origins["smtp-max-hops"] == "environment"
    assert settings.origins["smtp-range@25"] == "command line"
    assert settings.origins["smtp-port"] == "default"


def test_file_syntax(loaded):
    """Comments, blank lines, CRLF, a byte order mark and blanks around keys and values do not matter."""
    text = b"\xef\xbb\xbf# first\r\n\r\n  smtp-timeout :  7 # seconds\r\nrabbitmq-outbox: out#box\r\n#smtp-port: 1"
    settings = loaded(text)
    assert settings.receive(25).smtp_timeout == 7
    assert settings.queues.rabbitmq_outbox == "out#box"
    assert settings.listen.smtp_port == (25,)


def test_every_mistake_is_reported_at_once(mistakes):
    """One reading names every mistake with its place, what is wrong and the nearest known key."""
    text = (
        "smtp-prot: 25\n"
        "smtp-timeout: soon\n"
        "no colon here\n"
        "smtp-max-hops: 5\n"
        "smtp-max-hops: 6\n"
        "rabbitmq-type@25: classic\n"
        "smtp-range@587: 10.0.0.0/8\n"
        "smtp-relay: everybody\n"
    )
    found = mistakes(text, {"MTAQ_SMTP_PRT": "1"}, ["--smtp-maxsize", "--retry-intervall=5"])
    expected = [
        ("mtaq.conf:1: smtp-prot: unknown key", "nearest known key: smtp-port"),
        ("mtaq.conf:2: smtp-timeout: 'soon' is not a duration", "expected whole seconds"),
        ("mtaq.conf:3: no colon", "expected `key: value`"),
        ("mtaq.conf:5: smtp-max-hops: given twice, first on line 4", "expected once"),
        ("mtaq.conf:6: rabbitmq-type@25: takes no @port", "expected"),
        ("mtaq.conf:7: smtp-range@587: port 587 is neither", "expected one of: 25"),
        ("mtaq.conf:8: smtp-relay: 'everybody' is not known here", "expected authenticated, range or none"),
        ("environment: MTAQ_SMTP_PRT: unknown key", "nearest known key: smtp-port"),
        ("command line: smtp-maxsize: no value", "expected --smtp-maxsize=value"),
        ("command line: retry-intervall: unknown key", "nearest known key: retry-interval"),
    ]
    assert len(found) == len(expected)
    for line, (start, end) in zip(found, expected, strict=True):
        assert line.startswith(start)
        assert end in line


def test_unknown_key_without_likeness_points_at_the_documents(mistakes):
    """A key like no other is an error too."""
    assert "mtaq config docs" in mistakes("zzzzzz: 1")[0]


def test_an_overridden_mistake_is_still_a_mistake(mistakes):
    """A wrong value in the file is reported even when the command line gives a right one."""
    assert mistakes("smtp-timeout: soon", overrides=["--smtp-timeout=5"])


def test_named_file_must_exist(tmp_path):
    """A configuration file that is named and missing is an error."""
    with pytest.raises(ConfigErrors, match="no such file"):
        load(path=str(tmp_path / "none.conf"), environ={}, overrides=())


def test_folder_is_not_a_file(tmp_path):
    """A folder given as configuration file is an error in words, not a crash."""
    with pytest.raises(ConfigErrors, match="cannot be read"):
        load(path=str(tmp_path), environ={}, overrides=())


def test_default_file_need_not_exist(monkeypatch, tmp_path):
    """Without --config and without the default file the defaults hold."""
    monkeypatch.setattr("mtaq.config.loading.DEFAULT_PATH", str(tmp_path / "mtaq.conf"))
    assert load(path=None, environ={}, overrides=()).listen.smtp_port == (25,)


def test_not_utf8(mistakes):
    """A line that is not UTF-8 is named; the others are read."""
    found = mistakes(b"smtp-hostname: m\xe4il\nsmtp-timeout: x\n")
    assert "mtaq.conf:1: not UTF-8" in found[0]
    assert "mtaq.conf:2: smtp-timeout" in found[1]


def test_control_characters_are_refused(mistakes):
    """A value with control characters, which could forge log lines, is refused."""
    assert "control characters" in mistakes("smtp-hostname: a\x1b[2Jb")[0]


def test_passwords_never_appear_in_mistakes(mistakes):
    """No mistake repeats a line that may hold a password."""
    found = mistakes(
        "rabbitmq-address: amqp//u:hunter2@host\nrabbitmq-adress: amqp://u:hunter2@h\nrabbitmq-address amqp://hunter2\n"
        "hunter2\n",
        {"MTAQ_RABBITMQ_ADRESS": "amqp://u:hunter2@h"},
        ["--rabbitmq-adress=amqp://u:hunter2@h"],
    )
    assert len(found) == 6
    assert "hunter2" not in "".join(found)


def test_environment_names_ports_with_two_underscores(loaded):
    """``MTAQ_SMTP_RANGE__587`` is ``smtp-range@587``."""
    settings = loaded("smtp-port: 25,587", {"MTAQ_SMTP_RANGE__587": "10.0.0.0/8"})
    assert settings.receive(587).smtp_range.contains("10.0.0.1")
    assert not settings.receive(25).smtp_range.contains("10.0.0.1")


def test_override_of_a_port_comes_before_the_plain_key_wherever_it_stands(loaded):
    """A port's own value in the file wins over the plain key on the command line."""
    settings = loaded("smtp-timeout@25: 10", overrides=["--smtp-timeout=20"])
    assert settings.receive(25).smtp_timeout == 10
    assert settings.receive(26).smtp_timeout == 20


@pytest.mark.parametrize("port", ["", "0", "65536", "x", "25@26", "٢٥"])
def test_what_is_no_port_behind_the_at_sign(mistakes, port):
    """Behind @ stands one port."""
    assert len(mistakes(f"smtp-timeout@{port}: 10")) == 1


def test_value_from_a_file_named_in_the_environment(loaded, tmp_path):
    """``MTAQ_<KEY>_FILE`` reads the value, also for one port, and blanks at its end do not count."""
    (tmp_path / "secret").write_text("amqp://u:hunter2@host/\n")
    (tmp_path / "name").write_text("mail.example.com\n")
    settings = loaded(
        "",
        {
            "MTAQ_RABBITMQ_ADDRESS_FILE": str(tmp_path / "secret"),
            "MTAQ_SMTP_HOSTNAME__25_FILE": str(tmp_path / "name"),
        },
    )
    assert settings.queues.rabbitmq_address == ("amqp://u:hunter2@host/",)
    assert settings.receive(25).smtp_hostname == "mail.example.com"


def test_file_named_in_the_environment_is_missing_or_binary(mistakes, tmp_path):
    """A secret that cannot be read is a mistake."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    found = mistakes(
        "", {"MTAQ_SMTP_RANGE_FILE": "/nonexistent", "MTAQ_RABBITMQ_ADDRESS_FILE": str(tmp_path / "binary")}
    )
    assert "MTAQ_RABBITMQ_ADDRESS_FILE" in found[0]
    assert "MTAQ_SMTP_RANGE_FILE" in found[1]


def test_value_and_file_contradict(mistakes):
    """A value and a file for the same key are a contradiction."""
    assert "contradicts" in mistakes("", {"MTAQ_SMTP_RANGE": "", "MTAQ_SMTP_RANGE_FILE": "/x"})[0]


def test_descriptions_of_a_service_called_mtaq_are_not_ours(loaded):
    """The variables that Kubernetes sets for a service called mtaq are left alone."""
    links = {
        "MTAQ_SERVICE_HOST": "10.0.0.1",
        "MTAQ_SERVICE_PORT_SMTP": "25",
        "MTAQ_PORT": "tcp://10.0.0.1:25",
        "MTAQ_PORT_25_TCP": "tcp://10.0.0.1:25",
        "MTAQ_PORT_25_TCP_ADDR": "10.0.0.1",
        "OTHER": "x",
    }
    assert loaded("", links).given == {}


def test_lone_option_is_true(loaded):
    """``--key`` alone sets a boolean."""
    assert loaded(overrides=["--delivery-allow-private"]).deliver.delivery_allow_private


def test_explicitly_empty_inbox_discards(loaded):
    """An empty inbox is not the same as none named."""
    assert loaded("rabbitmq-inbox:").queues.rabbitmq_inbox is None
    assert loaded().queues.rabbitmq_inbox == "inbox"
    assert loaded("", {"MTAQ_RABBITMQ_INBOX": ""}).queues.rabbitmq_inbox is None


def test_deprecated_spelling_is_accepted_with_a_warning(loaded):
    """An old spelling works and the warning names the new one."""
    settings = loaded("smtp-defaultips: 192.0.2.1")
    assert settings.deliver.smtp_default_ips == ("192.0.2.1",)
    assert "write smtp-default-ips" in settings.warnings[0]
    assert len(settings.warnings) == 1


def test_old_and_new_spelling_together_are_one_key_given_twice(mistakes):
    """A key under two spellings is given twice."""
    assert "given twice" in mistakes("smtp-defaultips: 192.0.2.1\nsmtp-default-ips: 192.0.2.2")[0]
    assert "given twice" in mistakes("", {"MTAQ_SMTP_DEFAULTIPS": "192.0.2.1", "MTAQ_SMTP_DEFAULT_IPS": "192.0.2.2"})[0]


@pytest.mark.parametrize("pattern", WITHOUT_EFFECT)
def test_keys_of_mailerq_without_effect_warn_once(loaded, pattern):
    """A key of MailerQ that changes nothing here is accepted with one warning."""
    warnings = loaded(f"{pattern.replace('*', 'send')}: x").warnings
    assert len(warnings) == 1
    assert "no effect" in warnings[0]


@pytest.mark.parametrize("key", ["www-port", "storage-address"])
def test_keys_of_mailerq_that_would_matter_are_errors(mistakes, key):
    """A key whose silent absence would change what happens to mail is never ignored."""
    assert "unknown key" in mistakes(f"{key}: x")[0]


@pytest.mark.parametrize("key", ["rabbitmq-lazy", "rabbitmq-consumers", "rabbitmq-publishers"])
def test_obsolete_keys_are_accepted(loaded, key):
    """Obsolete keys take any value and say why they have no effect."""
    assert "has no effect" in loaded(f"{key}: 4").warnings[0]


def test_more_processes_than_cpus_is_capped_with_a_warning(loaded, monkeypatch):
    """More processes than CPUs is lowered to their number, with a warning."""
    monkeypatch.setattr("mtaq.config.loading.cpu_count", lambda: 2)
    settings = loaded("smtp-threads: 64")
    assert settings.process.smtp_threads == 2
    assert "64 is more than the 2 CPUs" in settings.warnings[0]


def test_default_server_id_is_fit_for_message_ids(loaded, monkeypatch):
    """Whatever the host is called, the default server-id fits into a message id."""
    names = {"relay.example.com": "relay-example-com", "": "mtaq", "ü" * 40: "mtaq", "x" * 64: "x" * 31}
    for name, server_id in names.items():
        monkeypatch.setattr("os.uname", lambda name=name: type("Uname", (), {"nodename": name}))
        assert loaded().process.server_id == server_id
