"""Contradictions between values that are each right."""

from __future__ import annotations

import os
import pwd
import stat

import pytest
import trustme

from mtaq.config import ConfigErrors, Settings, load


def loaded(*overrides: str) -> Settings:
    """Load defaults and a command line."""
    return load(path=os.devnull, environ={}, overrides=[f"--{override}" for override in overrides])


def mistakes(*overrides: str) -> list[str]:
    """Load and return the mistakes, one per line."""
    with pytest.raises(ConfigErrors) as caught:
        loaded(*overrides)
    return str(caught.value).removeprefix("command line: ").splitlines()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate and its key, as two options."""
    folder = tmp_path_factory.mktemp("tls")
    issued = trustme.CA().issue_cert("mail.example.com")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return f"smtp-certificate={folder}/cert.pem", f"smtp-key={folder}/key.pem"


def test_certificate_with_its_key_is_right(certificate):
    """A secure port with a certificate and its key is in order."""
    assert loaded("smtp-secure-port=465", *certificate).listen.smtp_secure_port == (465,)


def test_secure_port_needs_a_certificate():
    """A secure port without a certificate is a mistake, unless the port is closed."""
    assert mistakes("smtp-secure-port=465") == [
        "smtp-secure-port: port 465 has no certificate; expected smtp-certificate and smtp-key"
    ]
    assert loaded("smtp-secure-port=465", "smtp-enabled@465=false")


def test_certificate_without_key_and_key_without_certificate(certificate):
    """Certificate and key come together; the mistake is told once however many ports there are."""
    assert mistakes("smtp-port=25,26", certificate[0]) == [
        "smtp-certificate: smtp-key is missing; expected both or neither"
    ]
    assert mistakes("smtp-port=25,26", certificate[1]) == [
        "smtp-key: smtp-certificate is missing; expected both or neither"
    ]


def test_certificate_of_one_port_needs_a_key_as_well(certificate):
    """The pair may be completed by the plain key, and is checked per port."""
    name, path = certificate[0].split("=")
    assert loaded(f"{name}@25={path}", certificate[1])
    assert mistakes("smtp-port=25,26", f"{name}@26={path}")[0].startswith("smtp-certificate@26: ")


def test_missing_files_are_both_named():
    """A certificate and a key that do not exist are two mistakes."""
    found = mistakes("smtp-certificate=/nonexistent/cert", "smtp-key=/nonexistent/key")
    assert len(found) == 2
    assert "/nonexistent/cert cannot be read: No such file" in found[0]
    assert "/nonexistent/key cannot be read: No such file" in found[1]


def test_certificate_and_key_that_do_not_fit(certificate, tmp_path):
    """A key of another certificate is a mistake, and so is a file that is none."""
    trustme.CA().issue_cert("other.example.com").private_key_pem.write_to_path(tmp_path / "other.pem")
    assert "no usable pair" in mistakes(certificate[0], f"smtp-key={tmp_path}/other.pem")[0]
    (tmp_path / "empty").touch()
    assert "no usable pair" in mistakes(f"smtp-certificate={tmp_path}/empty", certificate[1])[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look with another user's eyes")
def test_key_that_the_user_cannot_read(certificate, tmp_path_factory):
    """A key that only root can read is a mistake when another user will have to."""
    key = certificate[1].removeprefix("smtp-key=")
    folder = os.path.dirname(key)
    nobody = pwd.getpwnam("nobody").pw_name
    opened = [folder, os.path.dirname(folder), os.path.dirname(os.path.dirname(folder))]
    before = {path: stat.S_IMODE(os.stat(path).st_mode) for path in [key, folder, *opened]}
    try:
        for path in opened:
            os.chmod(path, before[path] | 0o055)
        os.chmod(key, 0o600)
        found = mistakes(*certificate, f"user={nobody}")
        assert [line for line in found if "smtp-key" in line and f"cannot be read by user {nobody}" in line]
    finally:
        for path, mode in before.items():
            os.chmod(path, mode)


def test_user_must_exist():
    """A user that the system does not know is a mistake."""
    assert "no user 'nosuchuser'" in mistakes("user=nosuchuser")[0]


def test_port_in_both_lists(certificate):
    """A port is either plain or secure."""
    assert "port 25 is also in smtp-port" in mistakes("smtp-secure-port=25", *certificate)[0]


def test_metrics_port_takes_no_mail():
    """The metrics port is none of the mail ports."""
    assert "port 25 takes mail" in mistakes("metrics-port=25")[0]


OPEN = ("rabbitmq-inbox=outbox", "smtp-range=0.0.0.0/0")


@pytest.mark.parametrize("network", ["0.0.0.0/0", "::/0", "0.0.0.0/1;128.0.0.0/1", "10.0.0.0/8;::/1"])
def test_open_relay_is_refused(network):
    """Inbox and outbox in one, and a range that covers the Internet: that relays for everybody."""
    assert "an open relay on port 25" in mistakes("rabbitmq-inbox=outbox", f"smtp-range={network}")[0]


def test_a_relay_for_the_authenticated_alone_needs_logins():
    """Otherwise nobody could ever send there."""
    [mistake] = mistakes("smtp-relay=authenticated")
    assert "nobody can log in on port 25" in mistake


def test_evidence_is_not_delivered():
    """What was refused must not go into the outbox, nor into its delay queues."""
    assert "is the outbox" in mistakes("rabbitmq-refused=outbox")[0]
    assert "delay queues" in mistakes("rabbitmq-local=outbox.delay.1")[0]


def test_open_relay_on_one_port_is_refused():
    """One open port is enough, and the line that opened it is named."""
    found = mistakes("rabbitmq-inbox=outbox", "smtp-port=25,587", "smtp-range@587=0.0.0.0/0")
    assert found[0].startswith("smtp-range@587: an open relay on port 587")


@pytest.mark.parametrize(
    "cure", ["smtp-relay=none", "rabbitmq-inbox=inbox", "smtp-range=10.0.0.0/8", "smtp-enabled=false"]
)
def test_what_keeps_a_relay_closed(cure):
    """Each cure named in the message works."""
    assert loaded(*OPEN, cure)


@pytest.mark.parametrize("side", ["in", "out"])
def test_no_side_has_more_connections_than_both_together(side):
    """A cap above the total could never be reached."""
    assert mistakes(f"smtp-connections-{side}=1001") == [
        f"smtp-connections-{side}: 1001 is more than smtp-connections, which is 1000; expected at most that"
    ]
    assert loaded("smtp-connections=2000", f"smtp-connections-{side}=1001")


@pytest.mark.parametrize("key", ["rabbitmq-results", "rabbitmq-reports", "rabbitmq-retry", "rabbitmq-dead"])
def test_results_do_not_go_into_the_outbox(key):
    """A result published into the outbox would be delivered as a message."""
    assert f"{key}: is the outbox" in mistakes(f"{key}=outbox")[0]


def test_names_of_delay_queues_are_taken():
    """No queue may bear the name of one of the outbox's delay queues."""
    assert "mail.delay.*" in mistakes("rabbitmq-outbox=mail", "rabbitmq-results=mail.delay.1")[0]


def test_quorum_queues_are_durable():
    """Quorum queues cannot be transient; classic ones can."""
    assert "always durable" in mistakes("rabbitmq-durable=false")[0]
    assert loaded("rabbitmq-durable=false", "rabbitmq-type=classic")


def test_attempts_as_long_as_the_brokers_patience_are_warned_about():
    """An attempt that may last as long as the broker waits for acknowledgements is accepted with a warning."""
    assert "consumer_timeout" in loaded("delivery-attempt-timeout=30m").warnings[0]
    assert not loaded("delivery-attempt-timeout=1500").warnings


def test_proxies_everywhere_are_warned_about():
    """Whoever may send a PROXY header may claim to be anybody; as the whole Internet that is hardly meant."""
    assert "any address" in loaded("smtp-proxy=0.0.0.0/0").warnings[0]
    assert not loaded("smtp-proxy=10.0.0.0/8").warnings


def test_a_check_is_left_out_when_its_keys_are_wrong_already():
    """One mistake is told once: a range that cannot be read is not also called missing."""
    assert len(mistakes("rabbitmq-inbox=outbox", "smtp-range=0.0.0.0/99")) == 1


def test_client_authorities_stand_where_a_certificate_is(certificate, tmp_path):
    """A port without a certificate never asks for one; files that cannot be read, or hold none, are named."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    (tmp_path / "empty.pem").touch()
    assert loaded(*certificate, f"smtp-tls-client-ca={tmp_path}/ca.pem")
    assert "port 25 has no certificate" in mistakes(f"smtp-tls-client-ca={tmp_path}/ca.pem")[0]
    assert "cannot be read" in mistakes(*certificate, "smtp-tls-client-ca=/nonexistent/ca")[0]
    assert "no certificate authority" in mistakes(*certificate, f"smtp-tls-client-ca={tmp_path}/empty.pem")[0]


def test_spool_folders(tmp_path):
    """Both are folders that are there, and not the same one; one for failures alone makes no sense."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    assert loaded(f"spool-directory={one}", f"spool-fail-directory={other}")
    assert "is not a folder" in mistakes(f"spool-directory={tmp_path}/none")[0]
    assert "itself" in mistakes(f"spool-directory={one}", f"spool-fail-directory={one}/../one")[0]
    assert "spool-directory is missing" in mistakes(f"spool-fail-directory={other}")[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can look as somebody else")
def test_spool_folders_belong_to_the_user(tmp_path):
    """The user who works on them must be able to write there."""
    tmp_path.chmod(0o755)
    for parent in list(tmp_path.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o055)
    (tmp_path / "spool").mkdir(mode=0o755)
    assert "cannot be written to" in mistakes("user=nobody", f"spool-directory={tmp_path}/spool")[0]
    (tmp_path / "spool").chmod(0o777)
    assert loaded("user=nobody", f"spool-directory={tmp_path}/spool")


@pytest.mark.parametrize("queue", ["inbox", "outbox", "dead", "outbox.delay.3", "mine", "results"])
def test_an_archive_queue_is_one_of_its_own(queue):
    """Copies in a queue that somebody works on would be delivered, or worked on twice."""
    names = ("rabbitmq-local=mine", "rabbitmq-results=results")
    assert "expected one of its own" in mistakes(f"smtp-archive={queue}", *names)[0]
    assert loaded("smtp-archive=journal")


def test_strangers_that_are_believed_are_warned_of():
    """On a port that is open to the Internet, x-mq fields of everybody count unless something is said."""
    [warning] = loaded("smtp-port=25,26", "smtp-range=0.0.0.0/0", "smtp-extract@26=trusted").warnings
    assert "smtp-range: port 25 believes x-mq fields" in warning
    assert loaded("smtp-range=10.0.0.0/8").warnings == ()
    assert loaded("smtp-range=::/0", "smtp-extract=false").warnings == ()


@pytest.mark.parametrize("queue", ["inbox", "local", "reports"])
def test_what_was_refused_is_not_among_what_was_accepted(queue):
    """A script that works on accepted mail would take evidence of spam for mail."""
    names = ("rabbitmq-local=local", "rabbitmq-reports=reports", f"rabbitmq-refused={queue}")
    assert mistakes(*names)[0].startswith("rabbitmq-refused: also takes accepted mail")
    assert loaded("rabbitmq-local=local", "rabbitmq-refused=refused")


def test_nobody_is_cut_while_it_waits_to_be_greeted():
    """The greeting comes before the time-out of the session, on each port."""
    assert loaded("smtp-greeting-delay=299").reception.smtp_greeting_delay == 299
    assert "expected less than that" in mistakes("smtp-greeting-delay=300")[0]
    assert mistakes("smtp-greeting-delay=20", "smtp-timeout@25=20")[0].startswith("smtp-greeting-delay: port 25 ")


def test_a_message_is_refused_for_what_is_checked():
    """`smtp-check-reject` names what `smtp-check` of that port has."""
    assert loaded("smtp-check=spf,spam", "smtp-check-reject=spam").reception.smtp_check_reject == ("spam",)
    assert mistakes("smtp-check=spf", "smtp-check-reject=spam,spf") == [
        "smtp-check-reject: spam is not checked on port 25; expected it in smtp-check as well"
    ]
    assert mistakes("smtp-port=25,587", "smtp-check=dmarc", "smtp-check-reject=dmarc", "smtp-check@587=") == [
        "smtp-check-reject: dmarc is not checked on port 587; expected it in smtp-check as well"
    ]
    assert loaded(
        "smtp-port=25,587", "smtp-check=dmarc", "smtp-check-reject=dmarc", "smtp-check@587=", "smtp-check-reject@587="
    )


def test_results_that_are_never_written():
    """Fields about checks that do not run are warned of."""
    assert loaded("smtp-auth-results=local").warnings == (
        "command line: smtp-auth-results: nothing is checked on port 25; expected smtp-check as well",
    )
    assert loaded("smtp-check=dkim", "smtp-auth-results=local", "smtp-received-spf=true").warnings == (
        "command line: smtp-received-spf: not written on port 25; expected smtp-auth-results, and spf in smtp-check",
    )
    assert loaded("smtp-check=spf", "smtp-auth-results=local", "smtp-received-spf=true").warnings == ()


def test_dane_without_dnssec():
    """Who asks for DANE is told that it takes a resolver that is believed; as the default it is just not there."""
    [warning] = loaded("delivery-tls-policies=dane").warnings
    assert "expected dns-trust-ad: true as well" in warning
    assert loaded("delivery-tls-policies=dane", "dns-trust-ad=true").warnings == ()
    assert loaded("delivery-tls-policies=mta-sts").warnings == ()
    assert loaded().warnings == ()
