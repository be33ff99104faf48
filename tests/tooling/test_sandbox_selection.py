"""Which kind of service the sandbox chooses, and what it says about it."""

import contextlib
import threading
from pathlib import Path

import pytest

from worker.sandbox import SandboxError, selection
from worker.sandbox.packages import packages_to_unpack
from worker.sandbox.service import Surroundings

ROOT = Path(__file__).parents[2]
ORDER = ("docker", "local", "install")


class Named:
    """A service of which only the name matters."""

    def __init__(self, kind):
        self.kind = kind

    def describe(self):
        return f"RabbitMQ ({self.kind})"


@pytest.fixture
def said():
    return []


@pytest.fixture
def surroundings(said):
    return Surroundings(
        directory=Path("/nowhere"),
        cache=Path("/nowhere"),
        environment={},
        say=said.append,
        cancelled=threading.Event(),
        closing=contextlib.ExitStack(),
        started=lambda pid: None,
    )


def choose(surroundings, choice, working, *, asked=False, ended=None):
    ended = [] if ended is None else ended

    def attempt(kind, where):
        where.closing.callback(ended.append, kind)
        if kind not in working:
            raise SandboxError(f"{kind} is broken here.\nmore about it")
        return Named(kind)

    return selection._first(
        "RabbitMQ", choice, asked=asked, surroundings=surroundings, attempt=attempt
    )


@pytest.mark.parametrize("asked", [None, ""])
def test_unasked_the_usual_order_is_tried(asked):
    """An unset and an empty variable are the same, and a URL is never used unasked."""
    assert selection.kinds(asked, ORDER, "VARIABLE") == ORDER


def test_one_or_several_kinds_can_be_asked_for():
    """They are tried in the order in which they were named."""
    assert selection.kinds("url", ORDER, "VARIABLE") == ("url",)
    assert selection.kinds("install, docker", ORDER, "VARIABLE") == ("install", "docker")


def test_an_unknown_kind_is_refused_with_the_choice():
    """The text names the variable, the value and what it could be."""
    with pytest.raises(
        SandboxError, match=r"VARIABLE cannot be 'wheel': choose one of url, docker"
    ):
        selection.kinds("wheel", ORDER, "VARIABLE")


def test_the_first_choice_is_taken_and_said(surroundings, said):
    """Nothing else is tried."""
    assert choose(surroundings, ORDER, {"docker", "local"}).kind == "docker"
    assert said == ["RabbitMQ (docker), the first choice"]


def test_what_fails_is_passed_over_and_said(surroundings, said):
    """The next way is taken, with the reason why the ones before it were not."""
    assert choose(surroundings, ORDER, {"install"}).kind == "install"
    assert said == [
        "RabbitMQ (install), not docker: docker is broken here.; not local: local is broken here."
    ]


def test_what_a_failed_way_had_started_is_ended_at_once(surroundings):
    """What the way that was taken started is ended with the sandbox, and not before."""
    ended = []
    choose(surroundings, ORDER, {"local"}, ended=ended)
    assert ended == ["docker"]
    surroundings.closing.close()
    assert ended == ["docker", "local"]


def test_the_only_kind_asked_for_fails_with_its_own_words(surroundings, said):
    """There is no other way to take, so the reason is the error."""
    with pytest.raises(SandboxError, match=r"^docker is broken here"):
        choose(surroundings, ("docker",), {"local"}, asked=True)
    assert said == []


def test_without_any_way_every_reason_is_said(surroundings):
    """The error is the list of what was tried."""
    with pytest.raises(SandboxError, match=r"No RabbitMQ can be had here") as caught:
        choose(surroundings, ORDER, set())
    assert [line for line in str(caught.value).splitlines() if line.startswith("not ")] == [
        "not docker: docker is broken here.",
        "not local: local is broken here.",
        "not install: install is broken here.",
    ]


def test_a_start_that_was_cancelled_does_not_try_the_next_way(surroundings):
    """Leaving while a server starts must not start another one."""
    surroundings.cancelled.set()
    with pytest.raises(SandboxError, match=r"^docker is broken here"):
        choose(surroundings, ORDER, {"local"})


def test_only_missing_packages_are_unpacked():
    """What is installed stays what it is, also where a newer version is to be had."""
    plan = """
Inst libpopt0 (1.19+dfsg-1 Debian:12.11/stable [amd64])
Inst libc6 [2.36-9] (2.36-9+deb12u13 Debian:12.13/stable [amd64]) []
Inst erlang-base (1:25.2.3+dfsg-1 Debian:12.11/stable [amd64])
Conf libpopt0 (1.19+dfsg-1 Debian:12.11/stable [amd64])
"""
    assert packages_to_unpack(plan) == ["libpopt0", "erlang-base"]
