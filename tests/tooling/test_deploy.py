"""What stands in deploy/, as far as it can be tried without a container engine."""

import http.server
import os
import re
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from support.env_files import read_env

from worker import telemetry

DEPLOY = Path(__file__).parents[2] / "deploy"


def make_env(folder):
    """Run deploy/make-env as in a checkout that stands in this folder; what it said."""
    (folder / "deploy").mkdir(exist_ok=True)
    for name in ("make-env", "example.env"):
        shutil.copy(DEPLOY / name, folder / "deploy" / name)
    script = folder / "deploy" / "make-env"
    done = subprocess.run(["sh", script], capture_output=True, text=True, check=True)
    return done.stdout + done.stderr


def test_make_env_makes_passwords_that_only_the_owner_can_read(tmp_path):
    """They differ and are fit for a URL; everything else is as in the example, and no draft is left."""
    make_env(tmp_path)
    made = read_env(tmp_path / ".env")
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    passwords = [made.pop("POSTGRES_PASSWORD"), made.pop("RABBITMQ_PASSWORD")]
    assert len(set(passwords)) == 2
    assert all(len(password) == 48 and password.isalnum() for password in passwords)
    assert made.items() <= read_env(DEPLOY / "example.env").items()
    assert {path.name for path in tmp_path.iterdir()} == {".env", "deploy"}


def test_make_env_never_overwrites(tmp_path):
    """A second run says so, and the passwords stay those that the volumes know."""
    make_env(tmp_path)
    before = (tmp_path / ".env").read_text()
    assert "was left as it is" in make_env(tmp_path)
    assert (tmp_path / ".env").read_text() == before


def test_make_env_completes_a_copy_of_the_example(tmp_path):
    """Only passwords that are empty are made; nobody else may read the file afterwards."""
    env = tmp_path / ".env"
    env.write_text("POSTGRES_PASSWORD=mine\nRABBITMQ_PASSWORD=\nAMQP_PORT=5672\n# X_PASSWORD=\n")
    make_env(tmp_path)
    made = read_env(env)
    assert (made["POSTGRES_PASSWORD"], made["AMQP_PORT"]) == ("mine", "5672")
    assert len(made["RABBITMQ_PASSWORD"]) == 48
    assert stat.S_IMODE(env.stat().st_mode) == 0o600


class _Livez(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/livez" else 404)
        self.end_headers()

    def log_message(self, *arguments): ...


@pytest.fixture
def served():
    """A port at which /livez answers."""
    with http.server.HTTPServer(("127.0.0.1", 0), _Livez) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def check_health(port):
    return subprocess.run(
        [sys.executable, DEPLOY / "healthcheck.py"],
        env={**os.environ, "WORKER_HTTP_PORT": str(port)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_health_check_passes_while_livez_answers(served):
    """Nothing is said then."""
    done = check_health(served)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_health_check_fails_when_livez_is_not_well(served, monkeypatch):
    """The text is what `docker inspect` shows."""
    monkeypatch.setattr(_Livez, "status", 503)
    done = check_health(served)
    assert done.returncode == 1
    assert done.stderr == f"127.0.0.1:{served}/livez answered 503\n"


def test_the_health_check_fails_where_nobody_answers():
    """Port 1 is nobody's."""
    done = check_health(1)
    assert done.returncode == 1
    assert "no answer from 127.0.0.1:1/livez" in done.stderr


def test_the_health_check_passes_where_health_is_turned_off():
    """WORKER_HTTP_PORT=0 is the operator's own choice."""
    assert check_health(0).returncode == 0


def test_every_alert_reads_metrics_that_exist_and_says_what_to_do():
    """A metric that was renamed would leave an alert that never fires."""
    text = (DEPLOY / "prometheus-alerts.yml").read_text()
    published = set()
    for metric in telemetry.REGISTRY.collect():
        published |= {metric.name, f"{metric.name}_total", f"{metric.name}_bucket"}
    expressions = re.findall(r"expr: (.+)", text)
    read = {name for one in expressions for name in re.findall(r"\bworker_\w+", one)}
    assert read <= published
    assert len(read) >= 8
    alerts = len(re.findall(r"- alert: ", text))
    assert len(expressions) == alerts
    assert len(re.findall(r"summary: \".+\"\n +remedy: \".+\"", text)) == alerts


def test_the_compose_file_maintains_every_day_and_archives_into_a_volume():
    """The image owns the folder that the volume is mounted at, since it does not run as root, and the rest is read-only."""
    text = (DEPLOY.parent / "docker-compose.yml").read_text()
    service = text.partition("\n  maintain:\n")[2].partition("\nvolumes:\n")[0]
    assert "while worker maintain; do sleep 86400 & wait; done" in service
    [folder] = re.findall(r"WORKER_ARCHIVE: (\S+)", service)
    [(volume, mounted)] = re.findall(r"volumes: \[(\w+):(\S+)\]", service)
    assert mounted == folder
    assert f"\n  {volume}:" in text.partition("\nvolumes:\n")[2]
    assert "WORKER_RETENTION: ${WORKER_RETENTION:-}" in service
    dockerfile = (DEPLOY.parent / "Dockerfile").read_text()
    assert re.search(rf"install --directory --owner 10001 .*--mode 0700 {folder}\n", dockerfile)
