"""The image and the compose files, as far as they can be tried without a container engine."""

from __future__ import annotations

import fnmatch
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mtaq.cli.main import build_full_parser
from mtaq.config import load as load_settings
from tests.support import compose
from tests.support.instance import Program, free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]
IMAGE_CONFIGURATION = ROOT / "docker" / "mtaq.conf"
BASE = compose.load(ROOT / "docker-compose.yml")
TRIAL = compose.merge(BASE, compose.load(ROOT / "docker" / "compose.trial.yml"))
OURS = [(name, file) for file in (BASE, TRIAL) for name in file["services"] if name != "rabbitmq"]
PROGRAMS = [(name, file) for name, file in OURS if "entrypoint" not in file["services"][name]]
UID = 10001

services = pytest.mark.parametrize(("name", "file"), OURS, ids=[name for name, _ in OURS])
programs = pytest.mark.parametrize(("name", "file"), PROGRAMS, ids=[name for name, _ in PROGRAMS])


def environment_of(file: dict[str, Any], name: str) -> dict[str, str]:
    """What a service has in its environment, its secrets where they lie in the repository."""
    secrets = {f"/run/secrets/{secret}": str(ROOT / row["file"]) for secret, row in file["secrets"].items()}
    return {key: secrets.get(value, value) for key, value in file["services"][name].get("environment", {}).items()}


def clean_environment(**more: str) -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if not key.startswith("MTAQ_")} | more


def mtaq(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mtaq", *arguments],
        cwd=ROOT, env=clean_environment(**environment), capture_output=True, text=True, timeout=60,
    )  # fmt: skip


# The compose files.


@programs
def test_environment_is_a_configuration_without_mistakes(name: str, file: dict[str, Any]) -> None:
    """What compose sets, on top of the image's own file, is right and warns of nothing."""
    checked = mtaq("config", "check", "--config", str(IMAGE_CONFIGURATION), **environment_of(file, name))
    assert (checked.returncode, checked.stderr) == (0, "")


@programs
def test_commands_are_verbs(name: str, file: dict[str, Any]) -> None:
    """Every command is one that mtaq understands."""
    build_full_parser().parse_args(file["services"][name]["command"])


@services
def test_what_a_service_names_is_there(name: str, file: dict[str, Any]) -> None:
    """Secrets, their files, volumes and the services waited for exist; whoever is waited for has a health check."""
    service = file["services"][name]
    for secret in service.get("secrets", []):
        assert (ROOT / file["secrets"][secret]["file"]).is_file()
    for volume in service.get("volumes", []):
        assert volume.partition(":")[0] in file["volumes"]
    for other, wait in service.get("depends_on", {}).items():
        assert wait["condition"] == "service_healthy"
        assert file["services"][other].get("healthcheck") != {"disable": True}


@services
def test_services_run_with_no_more_than_they_need(name: str, file: dict[str, Any]) -> None:
    """No capability, no writable image, and more time to stop than mtaq takes at most (35 s) where mail is handled."""
    service = file["services"][name]
    assert service["cap_drop"] == ["ALL"]
    assert service["read_only"] is True
    if name != "sink":
        assert service["stop_grace_period"] == "60s"
        assert any(f"uid={UID}" in folder for folder in service["tmpfs"] if folder.startswith("/run/mtaq"))


@programs
def test_orphans_are_collected(name: str, file: dict[str, Any]) -> None:
    """An init process is there for what killed programs of operators leave behind: mtaq collects its children only."""
    assert name == "sink" or file["services"][name]["init"] is True


def test_consumer_script_is_in_the_image() -> None:
    """The consumer's command is a script that the Dockerfile copies there."""
    command, path = BASE["services"]["consumer"]["entrypoint"]
    assert command == "python"
    (copied,) = [line for line in instructions()[1] if line.startswith("COPY scripts/")]
    *sources, folder = copied.split()[1:]
    assert path in [f"{folder}{Path(source).name}" for source in sources]


def test_broker_has_the_user_that_the_address_names() -> None:
    """The password in the address is the one RabbitMQ is given."""
    address = (ROOT / "docker/secrets/rabbitmq-address").read_text().strip()
    given = dict(re.findall(r"^(\w+) = (.+)$", (ROOT / "docker/secrets/rabbitmq-user.conf").read_text(), re.MULTILINE))
    assert address == f"amqp://{given['default_user']}:{given['default_pass']}@rabbitmq/"
    assert BASE["services"]["rabbitmq"]["hostname"] == "rabbitmq"


def test_mail_can_be_sent_from_this_machine_only() -> None:
    """As it is shipped, no port of the host is open to others."""
    for service in TRIAL["services"].values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")


# The image.


def instructions() -> list[list[str]]:
    """Return the instructions of each stage of the Dockerfile, continuation lines joined."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [re.sub(r"\s+", " ", line) for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("FROM ")]
    return [lines[start:end] for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def arguments_of(keyword: str) -> str:
    """Return what follows the only *keyword* of the final stage."""
    (line,) = [line for line in instructions()[-1] if line.startswith(f"{keyword} ")]
    return line.removeprefix(f"{keyword} ")


def test_what_is_copied_is_there_and_not_ignored() -> None:
    """Every file that the Dockerfile copies exists and gets past .dockerignore."""
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = [rule[1:] for rule in rules if rule.startswith("!")]
    for line in (line for stage in instructions() for line in stage if line.startswith("COPY ")):
        if "--from=" in line:
            continue
        for source in line.split()[1:-1]:
            assert (ROOT / source).exists(), source
            assert any(fnmatch.fnmatch(source.rstrip("/"), rule) or source.startswith(f"{rule}/") for rule in kept)


def test_image_starts_as_documented() -> None:
    """Entry point, command and health check are verbs; the port is the configuration's; the user is not root."""
    assert json.loads(arguments_of("ENTRYPOINT")) == ["mtaq"]
    build_full_parser().parse_args(json.loads(arguments_of("CMD")))
    build_full_parser().parse_args(json.loads(arguments_of("HEALTHCHECK").partition(" CMD ")[2])[1:])
    settings = load_settings(path=str(IMAGE_CONFIGURATION), environ={}, overrides=())
    assert settings.listen.smtp_port == (int(arguments_of("EXPOSE")),)
    assert settings.process.data_directory == arguments_of("VOLUME")
    assert settings.process.metrics_port is not None
    assert arguments_of("USER") == f"{UID}:{UID}"
    assert arguments_of("STOPSIGNAL") == "SIGTERM"


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder that other users can enter, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(prefix="mtaq-image-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def run_step(command: str, scratch: Path) -> None:
    """Run a RUN instruction of the build stage with *scratch* for the root of the file system."""
    environment = clean_environment(
        PATH=f"{scratch}/bin:/usr/bin:/bin", PIP_RETRIES="1", PIP_TIMEOUT="20", PYTHONDONTWRITEBYTECODE=""
    )
    done = subprocess.run(
        ["/bin/sh", "-euc", re.sub(r"(?<=\s)/(?=(?:build|opt)\b)", f"{scratch}/", f" {command}")],
        cwd=scratch / "src", env=environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    if done.returncode and re.search("ConnectionError|NewConnectionError|Temporary failure", done.stderr):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_build_steps_give_a_working_program(scratch: Path) -> None:
    """The commands of the build stage, run by hand, install the lock and the program, for every user to run."""
    build = instructions()[0]
    ignored = shutil.ignore_patterns("__pycache__")
    for source in [source for line in build if line.startswith("COPY ") for source in line.split()[1:-1]]:
        target = scratch / "src" / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=ignored)
        else:
            shutil.copy(ROOT / source, target)
    (scratch / "bin").mkdir()
    (scratch / "bin" / "python").symlink_to(os.path.realpath(sys.executable))
    for line in build:
        if line.startswith("RUN "):
            run_step(line.removeprefix("RUN "), scratch)
    installed = scratch / "opt" / "mtaq" / "bin"
    user = UID if os.geteuid() == 0 and may_enter(UID, Path(sys.base_prefix)) else None
    version = subprocess.run(
        [installed / "mtaq", "version"], cwd="/", env={}, user=user, capture_output=True, text=True, timeout=60
    )
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("mtaq ")
    assert not (installed / "pip").exists()


def may_enter(uid: int, folder: Path) -> bool:
    """Does a Python in *folder* work for that user? One below /root does not."""
    return subprocess.run(["/usr/bin/test", "-x", folder / "bin"], user=uid, group=uid, extra_groups=()).returncode == 0


# The health check.


def test_health_says_no_when_nothing_runs() -> None:
    """Without an instance the check fails, so that Docker takes the container for unhealthy."""
    asked = mtaq("health", "--config", str(IMAGE_CONFIGURATION), f"--metrics-port={free_port()}")
    assert asked.returncode == os.EX_UNAVAILABLE
    assert "no answer from" in asked.stderr


def test_health_needs_a_port_to_ask() -> None:
    """A configuration without metrics-port is a mistake that the check names."""
    asked = mtaq("health", "--metrics-port=")
    assert asked.returncode == os.EX_CONFIG
    assert "metrics-port" in asked.stderr


@pytest.mark.parametrize("verb", ["receive", "deliver"])
def test_health_follows_an_instance(verb: str, tmp_path: Path) -> None:
    """With the image's configuration the check passes while the instance works, and fails once it has stopped."""
    settings = [
        "--config", str(IMAGE_CONFIGURATION), f"--metrics-port={free_port()}", f"--smtp-port={free_port()}",
        "--smtp-ip=127.0.0.1", "--smtp-threads=1", f"--rabbitmq-address=embedded://{tmp_path}/queue",
        f"--data-directory={tmp_path}/data", f"--run-directory={tmp_path}/run",
    ]  # fmt: skip
    program = Program(tmp_path, verb, verb, *settings)
    try:
        program.start()
        wait_until(lambda: mtaq("health", *settings).returncode == 0, "a healthy instance")
        assert program.stop() == 0
        assert mtaq("health", *settings).returncode == os.EX_UNAVAILABLE
    finally:
        program.cleanup()
