"""The doctor's look at RabbitMQ: version, topology, whether it takes publishes, and whether anyone consumes."""

import asyncio
import re
from uuid import uuid4

from worker import families
from worker.broker import topology
from worker.broker.connection import BrokerConnection
from worker.broker.publisher import Answer, ConfirmedPublisher
from worker.broker.topology import Topology
from worker.operations.findings import Finding, mend, note, ok
from worker.operations.services import whole_topology

_OLDEST_VERSION = (3, 10)
_ANSWER_SECONDS = 5.0
_APPLY = "Run 'worker topology apply'."


async def examine(connection: BrokerConnection) -> list[Finding]:
    """Every finding about the broker, which is reachable."""
    findings = [judge_version(connection.server), judge_heartbeat(connection.heartbeat)]
    needed = len(families.families()) + 3  # the special queues', and one to ask with
    findings.append(judge_channels(connection.channel_max, needed))
    wanted = whole_topology()
    findings += judge_topology(wanted, await topology.check(connection, wanted))
    for name in (*families.families(), topology.UNROUTED_FAMILY):
        queue = topology.queue_name(name)
        counts = await topology.queue_counts(connection, queue)
        if counts and (finding := judge_consumers(queue, *counts)):
            findings.append(finding)
    # Last: where publishing is blocked, nothing else on this connection is answered.
    findings.append(judge_publishing(await _probe(connection)))
    return findings


def judge_version(server: str) -> Finding:
    """Whether this is a broker that the worker was made for."""
    product, _, version = server.partition(" ")
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if product == "RabbitMQ" and numbers < _OLDEST_VERSION:
        return mend("broker", f"{server} is too old", "Move to RabbitMQ 3.10 or later.")
    if product != "RabbitMQ":
        return note(
            "broker", f"{server} is not RabbitMQ", "The worker is tested with RabbitMQ only."
        )
    return ok("broker", f"{server} answers")


def judge_heartbeat(seconds: int) -> Finding:
    """Whether a dead connection would be noticed."""
    if not seconds:
        return mend(
            "heartbeat",
            "the connection has no heartbeat: a broker that vanishes is not noticed",
            "Let the broker's setting 'heartbeat' be 10 to 60 seconds.",
        )
    return ok("heartbeat", f"every {seconds} s")


def judge_channels(most: int, needed: int) -> Finding:
    """Whether a connection has room for a channel a family."""
    if 0 < most < needed:
        return mend(
            "channels",
            f"a connection may have {most} channels, and a worker of all families needs {needed}",
            f"Set channel_max in rabbitmq.conf to {needed} or more.",
        )
    return ok("channels", f"at most {most} on a connection" if most else "not limited")


def judge_topology(wanted: Topology, problems: list[str]) -> list[Finding]:
    """Whether every exchange and queue is there, and as it should be."""
    if not problems:
        text = f"{len(wanted.exchanges)} exchanges and {len(wanted.queues)} quorum queues are as they should be"
        return [ok("topology", text)]
    missing = [problem for problem in problems if problem.endswith("is missing")]
    different = [problem for problem in problems if problem not in missing]
    findings = [mend("topology", problem, _differing(problem)) for problem in different]
    if missing:
        findings.append(mend("topology", "; ".join(missing), _APPLY))
    return findings


def _differing(problem: str) -> str:
    what = problem.split(" has ", 1)[0].split(" differs", 1)[0]
    return f"Empty and delete {what}, then run 'worker topology apply'; or change the policy or declaration that made it so."


def judge_consumers(queue: str, waiting: int, consumers: int) -> Finding | None:
    """Whether what waits is being consumed."""
    if waiting and not consumers:
        return mend(
            "queues",
            f"{waiting} messages wait in {queue} and nobody consumes it",
            "Start 'worker run'.",
        )
    return None


def judge_publishing(answer: Answer | None) -> Finding:
    """Whether the broker takes publishes; None where it did not answer."""
    match answer:
        case Answer.ACCEPTED | Answer.RETURNED:
            return ok("publishing", "the broker takes publishes: no memory or disk alarm")
        case None:
            return mend(
                "publishing",
                f"the broker did not take a publish within {_ANSWER_SECONDS:.0f} s: a memory or disk alarm is in effect",
                "Look at 'rabbitmqctl status' for alarms; free disk or memory, or drain queues. Confirmations wait until then.",
            )
        case _:
            return mend(
                "publishing",
                "the broker refused a publish to its default exchange",
                "Give this user write permission in the virtual host: confirmations and replies are published.",
            )


async def _probe(connection: BrokerConnection) -> Answer | None:
    """Publish, twice, to a queue that is not there: dropped at once, or, under an alarm, not answered.

    Under an alarm the broker still takes the first publish of a connection and reads no further.
    """
    nowhere = f"doctor-{uuid4()}"
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            publisher = await ConfirmedPublisher.open(connection)
            await publisher.publish("", nowhere, b"")
            return await publisher.publish("", nowhere, b"")
    except TimeoutError:
        return None
