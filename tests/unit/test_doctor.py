"""What the doctor makes of what it saw; seeing it is tested against real services."""

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest

from worker.broker.publisher import Answer
from worker.operations import (
    broker_checks,
    database_checks,
    management_checks,
    replication_checks,
    server_checks,
    tenancy_checks,
    worker_checks,
)
from worker.operations.doctor import must_be_mended
from worker.operations.findings import Level, mend, note, ok
from worker.operations.replication_checks import Replication, Standby
from worker.operations.server_checks import Server
from worker.operations.services import whole_topology
from worker.settings import Settings
from worker.store.partitions import Month, Partition, PartitionStatus

WELL = Server(
    version="17.2",
    version_number=170002,
    role="agents",
    read_only=False,
    synchronous_commit="on",
    fsync="on",
    full_page_writes="on",
    lz4=True,
    connections=3,
    max_connections=100,
    role_connections=3,
    role_limit=None,
    isolation="read committed",
    skew=timedelta(0),
)
THIS_MONTH = Month(2026, 11)


def test_a_healthy_server_has_nothing_to_mend():
    """A version that is supported, durable, in time, with room."""
    assert {finding.level for finding in server_checks.judge_server(WELL)} == {Level.OK}


@pytest.mark.parametrize(
    ("change", "check", "level"),
    [
        ({"version": "14.9", "version_number": 140009}, "database", Level.MEND),
        ({"read_only": True}, "writing", Level.MEND),
        ({"fsync": "off"}, "durability", Level.MEND),
        ({"synchronous_commit": "off"}, "durability", Level.MEND),
        ({"synchronous_commit": "local"}, "durability", Level.OK),
        ({"skew": timedelta(seconds=5)}, "clock", Level.NOTE),
        ({"skew": timedelta(minutes=5)}, "clock", Level.MEND),
        ({"connections": 95}, "connections", Level.NOTE),
        ({"lz4": False}, "compression", Level.NOTE),
        ({"role_limit": 10}, "connections", Level.NOTE),
        ({"role_limit": 50}, "connections", Level.OK),
        ({"isolation": "serializable"}, "isolation", Level.NOTE),
    ],
)
def test_what_differs_from_a_healthy_server_is_found(change, check, level):
    """Each with its level, and a remedy unless all is well."""
    findings = server_checks.judge_server(dataclasses.replace(WELL, **change))
    found = next(finding for finding in findings if finding.check == check)
    assert found.level is level
    assert bool(found.remedy) is (level is not Level.OK)


def test_missing_privileges_come_with_the_grant():
    """The remedy can be pasted."""
    found = server_checks.judge_privileges("agents", ["INSERT on tasks"])
    assert found.level is Level.MEND
    assert "INSERT on tasks" in found.what
    assert "TO agents" in found.remedy


def partition(month):
    return Partition(month.partition_of("logs"), month.bounds)


@pytest.mark.parametrize(
    ("missing", "level"),
    [
        ((), Level.OK),
        ((THIS_MONTH.plus(1),), Level.MEND),
        ((THIS_MONTH.plus(2), THIS_MONTH.plus(3)), Level.NOTE),
    ],
)
def test_months_without_a_partition(missing, level):
    """Far ones are a note, near ones must be made."""
    status = PartitionStatus("logs", (partition(THIS_MONTH),), missing, 0)
    assert database_checks.judge_partitions([status], THIS_MONTH)[0].level is level


def test_rows_in_a_default_partition_are_noted():
    """They are stored and found, but cannot be dropped by the month."""
    status = PartitionStatus("logs", (partition(THIS_MONTH),), (), 10_000)
    (found,) = database_checks.judge_partitions([status], THIS_MONTH)
    assert found.level is Level.NOTE
    assert "10000 or more rows of logs" in found.what


def test_the_window_of_idempotency_is_without_limit_until_months_are_dropped():
    """A message is recognised as long as its row is kept."""
    kept = PartitionStatus("logs", (partition(THIS_MONTH), Partition("logs_default", None)), (), 0)
    assert database_checks.judge_window([kept], THIS_MONTH).level is Level.OK
    dropped = PartitionStatus("logs", (partition(THIS_MONTH.plus(1)),), (), 0)
    found = database_checks.judge_window([dropped], THIS_MONTH)
    assert found.level is Level.NOTE
    assert "logs 2026-12" in found.what


@pytest.mark.parametrize(
    ("given", "age", "level", "told"),
    [
        ({}, 2, Level.OK, "conversation_history 90d"),
        ({}, 6, Level.NOTE, "WORKER_ARCHIVE names no folder"),
        ({"archive": "/archive"}, 6, Level.OK, "trust_metrics 30d"),
        ({"retention": "conversation_history=keep"}, 6, Level.OK, "agent_audit_log 3y"),
        ({"retention": "conversation_history=90"}, 6, Level.MEND, "write table=active/archive"),
    ],
)
def test_how_long_rows_are_kept(given, age, level, told):
    """What is due and cannot leave is noted, a wrong policy is to mend, and the window is told."""
    now = datetime.now(UTC)
    places = {"database_url": "postgresql://a", "amqp_url": "amqp://a"}
    months = (partition(Month.of(now).plus(-age)), Partition("conversation_history_default", None))
    status = PartitionStatus("conversation_history", months, (), 0)
    found = database_checks.judge_retention(Settings.load(**places, **given), [status], now)
    assert (found.level, told in found.what) == (level, True)


@pytest.mark.parametrize(
    ("rows", "oldest", "level"), [(0, None, Level.OK), (3, 5.0, Level.OK), (3, 500.0, Level.MEND)]
)
def test_confirmations_that_nobody_sends(rows, oldest, level):
    """Young rows are normal, rows that outlived several sweeps are not."""
    assert database_checks.judge_outbox(rows, oldest, sweep_after=30).level is level


def test_migrations_and_letters():
    """Missing migrations are to mend; letters wait for a person, and the worker works."""
    assert database_checks.judge_migrations({"0001", "0002"}, {"0001"}).what == "missing: 0002"
    assert database_checks.judge_migrations({"0001"}, {"0001", "0002"}).level is Level.OK
    assert database_checks.judge_letters({}).level is Level.OK
    assert database_checks.judge_letters({("task-lifecycle", "invalid"): 3}).level is Level.NOTE


def test_what_the_loss_ledger_lacks_is_noted():
    """It may be on its way: the doctor does not wait, and names the command that does."""
    assert database_checks.judge_ledger(0, 0).level is Level.OK
    for numbers in ((1, 0), (0, 1)):
        found = database_checks.judge_ledger(*numbers)
        assert found.level is Level.NOTE
        assert "worker reconcile" in found.remedy


@pytest.mark.parametrize(
    ("server", "level"),
    [
        ("RabbitMQ 3.9.29", Level.MEND),
        ("RabbitMQ 3.10.8", Level.OK),
        ("RabbitMQ 4.1.0-rc.1", Level.OK),
        ("LavinMQ 2.1.0", Level.NOTE),
    ],
)
def test_versions_of_brokers(server, level):
    """Quorum queues do what the worker needs from 3.10 on."""
    assert broker_checks.judge_version(server).level is level


@pytest.mark.parametrize(
    ("answer", "level"),
    [
        (Answer.ACCEPTED, Level.OK),
        (Answer.RETURNED, Level.OK),
        (None, Level.MEND),
        (Answer.LOST, Level.MEND),
    ],
)
def test_a_broker_that_takes_no_publishes(answer, level):
    """Silence is an alarm, a refusal is a missing permission."""
    assert broker_checks.judge_publishing(answer).level is level


def test_topology_problems_are_told_apart():
    """What is missing can be applied; what differs has to be removed first."""
    problems = [
        "queue worker.a is missing",
        "queue worker.b has x-queue-type 'classic', wanted is 'quorum'",
    ]
    different, missing = broker_checks.judge_topology(whole_topology(), problems)
    assert "delete queue worker.b" in different.remedy
    assert missing.remedy == "Run 'worker topology apply'."
    (well,) = broker_checks.judge_topology(whole_topology(), [])
    assert well.level is Level.OK


def test_a_backlog_without_consumers():
    """An empty queue needs no consumer to be well."""
    assert broker_checks.judge_consumers("worker.a", 0, 0) is None
    assert broker_checks.judge_consumers("worker.a", 5, 1) is None
    assert broker_checks.judge_consumers("worker.a", 5, 0).level is Level.MEND
    assert broker_checks.judge_heartbeat(0).level is Level.MEND


@pytest.mark.parametrize(
    ("body", "level"),
    [
        ('{"status": "ready", "checks": {"queues": "ok", "database": "ok"}}', Level.OK),
        ('{"status": "not ready", "checks": {"queues": "not attached"}}', Level.MEND),
        ("<html>", Level.NOTE),
        ("[]", Level.NOTE),
    ],
)
def test_what_a_worker_nearby_says_of_itself(body, level):
    """Something else on its port is no worker."""
    assert worker_checks.judge_ready(body).level is level


def test_a_paused_family_is_named():
    """As the worker's own metrics have it."""
    from worker import telemetry

    telemetry.declare_families(["task-lifecycle", "trajectory"])
    assert worker_checks.judge_pause(telemetry.exposition().decode()) == []
    telemetry.paused.labels("trajectory").set(1)
    (found,) = worker_checks.judge_pause(telemetry.exposition().decode())
    telemetry.paused.labels("trajectory").set(0)
    assert found.what.endswith(": trajectory")


def test_notes_are_no_failure():
    """Exit code 2 is for what must be mended."""
    assert not must_be_mended([ok("a", "b"), note("c", "d")])
    assert must_be_mended([ok("a", "b"), mend("c", "d", "e")])


def test_months_are_those_of_now():
    """A partition's first key tells its month."""
    month = Month.of(datetime.now(UTC))
    status = PartitionStatus("logs", (partition(month),), (), 0)
    assert database_checks.judge_window([status], month).level is Level.OK


NEAR = Standby("near", "streaming", "sync", 0)
FAR = Standby("far", "streaming", "async", 2**40)
HIDDEN = Standby("hidden", None, None, None)


@pytest.mark.parametrize(
    ("replication", "level", "told"),
    [
        (Replication("on", ""), Level.OK, "no standby"),
        (Replication("on", "", (NEAR,)), Level.NOTE, "asynchronously"),
        (Replication("on", "near", (NEAR,)), Level.OK, "wait for near"),
        (Replication("on", "near", (FAR,)), Level.MEND, "none of them is connected"),
        (Replication("local", "near", (NEAR,)), Level.NOTE, "synchronous_commit is local"),
        (Replication("on", "near", (NEAR, HIDDEN)), Level.NOTE, "may not see"),
    ],
)
def test_what_a_failover_would_keep(replication, level, told):
    """Who follows, and what commits wait for."""
    found = replication_checks.judge(replication)[0]
    assert found.level is level
    assert told in found.what


def test_a_standby_that_is_far_behind_is_noted():
    """Its readers see old rows."""
    lag = replication_checks.judge(Replication("on", "", (NEAR, FAR)))[1]
    assert (lag.level, lag.what) == (Level.NOTE, "far is 1048576 MiB behind")


QUEUE = {
    "name": "worker.a",
    "arguments": {"x-delivery-limit": 1_000_000, "x-overflow": "reject-publish"},
    "policy": "p",
    "operator_policy": None,
}


@pytest.mark.parametrize(
    ("definition", "found"),
    [
        (None, []),
        ({"max-length": 10}, ["max-length"]),
        ({"delivery-limit": 20}, ["delivery-limit"]),
        ({"delivery-limit": 2_000_000, "overflow": "drop-head"}, []),
        ({"queue-leader-locator": "balanced", "message-ttl": 1}, ["message-ttl"]),
    ],
)
def test_policies_that_change_a_queue(definition, found):
    """What the queue says of itself stands, unless a policy's number is smaller."""
    queue = {**QUEUE, "effective_policy_definition": definition}
    findings = management_checks.judge_policies([queue])
    told = [one.what for one in findings if one.level is Level.MEND]
    assert len(told) == len(found)
    assert all(f"policy p sets {key} = " in text for key, text in zip(found, told, strict=True))


def test_nodes_with_alarms_or_without_room():
    """Each in a sentence with its node."""
    well = {"name": "rabbit@a", "running": True, "fd_used": 10, "fd_total": 100}
    assert [one.level for one in management_checks.judge_nodes([well])] == [Level.OK]
    ill = {
        **well,
        "disk_free_alarm": True,
        "mem_alarm": True,
        "partitions": ["rabbit@b"],
        "fd_used": 99,
    }
    mended, noted = management_checks.judge_nodes([well, ill])
    assert mended.what.count("has a ") == 2
    assert "network partition" in mended.what
    assert noted.level is Level.NOTE


def test_queues_without_replicas_matter_in_a_cluster_only():
    """On one node there is nowhere to go."""
    alone = {"name": "worker.a", "members": ["rabbit@a"]}
    assert management_checks.judge_replicas([alone], 1) == []
    assert management_checks.judge_replicas([alone], 3)[0].level is Level.NOTE


def test_channels_and_limits():
    """Few are few, none is no limit."""
    assert broker_checks.judge_channels(0, 6).level is Level.OK
    assert broker_checks.judge_channels(2047, 6).level is Level.OK
    assert broker_checks.judge_channels(5, 6).level is Level.MEND
    assert management_checks.judge_limits({}).level is Level.OK
    assert management_checks.judge_limits({"max-connections": 3}).level is Level.NOTE


@pytest.mark.parametrize(
    ("change", "level", "told"),
    [
        ({}, Level.OK, "on every table"),
        ({"absent": ["worker_reader"]}, Level.MEND, "there is no role worker_reader"),
        ({"loose": ["worker_reader"]}, Level.MEND, "may log in"),
        ({"open": [f"t{n}" for n in range(7)]}, Level.MEND, "t0, t1, t2, t3, t4 and 2 more"),
        ({"unowned": ["tasks"]}, Level.MEND, "the owner of tasks has changed"),
        ({"lending": ["all_tasks"]}, Level.MEND, "all_tasks"),
        ({"writer": False}, Level.MEND, "role me is no member of worker_writer"),
        ({"writer": False, "operator": True}, Level.OK, "on every table"),
        ({"unbound_readers": ["acme_reader"]}, Level.MEND, "does not bind"),
        ({"unbound": True}, Level.NOTE, "role me is a superuser"),
        ({"shared": True}, Level.NOTE, "anybody may make tables"),
    ],
)
def test_what_tenancy_lacks_is_found(change, level, told):
    """Each with its level, and a remedy unless all is well."""
    [found] = tenancy_checks.judge(tenancy_checks.Tenancy("me", **change))
    assert (found.check, found.level, told in found.what) == ("tenancy", level, True)
    assert bool(found.remedy) is (level is not Level.OK)
