"""The doctor's look at what only RabbitMQ's management API shows: policies, alarms, limits and replicas."""

from collections.abc import Iterable, Mapping
from typing import Any

from worker.broker.management import Management
from worker.errors import Unavailable
from worker.operations.findings import Finding, mend, note, ok
from worker.operations.services import whole_topology
from worker.settings import Settings

_CONNECTIONS_OF_A_WORKER = 2
_HARMFUL = {
    "message-ttl": "messages that wait longer are dead-lettered",
    "expires": "the queue is deleted when nobody consumes it",
    "max-length": "publishers are refused, or messages dropped, while the queue is this long",
    "max-length-bytes": "publishers are refused, or messages dropped, while the queue is this large",
    "delivery-limit": "messages that were handed out so often are dead-lettered, also innocent ones in an outage",
    "overflow": "the queue may drop its oldest messages",
    "dead-letter-exchange": "dead letters go elsewhere, past the worker",
    "dead-letter-routing-key": "dead letters go elsewhere, past the worker",
    "dead-letter-strategy": "dead letters may be lost on their way",
    "consumer-timeout": "a worker that waits for PostgreSQL longer loses its channel",
}
_NAMED_BY_THE_QUEUE = {
    "delivery-limit": "x-delivery-limit",
    "dead-letter-exchange": "x-dead-letter-exchange",
    "dead-letter-routing-key": "x-dead-letter-routing-key",
    "dead-letter-strategy": "x-dead-letter-strategy",
    "overflow": "x-overflow",
    "consumer-timeout": "x-consumer-timeout",
}
"""Arguments that the worker's queues name themselves: of a number the smaller counts, else the queue's own."""


async def examine(settings: Settings) -> list[Finding]:
    """Every finding of the management API; where there is none, what cannot be seen."""
    if settings.management_url is None:
        return [
            note(
                "policies",
                "policies and alarms of RabbitMQ cannot be seen over AMQP",
                "Set WORKER_MANAGEMENT_URL, or see that 'rabbitmqctl list_policies' has none that matches worker.*.",
            )
        ]
    management = Management.of(settings.management_url.get_secret_value(), settings.broker)
    try:
        queues = await management.queues()
        nodes = await management.nodes()
        limits = await management.limits()
    except Unavailable as error:
        remedy = "Check WORKER_MANAGEMENT_URL; its user needs the tag 'monitoring', and read permission in the virtual host."
        return [mend("policies", str(error), remedy)]
    wanted = {queue.name for queue in whole_topology().queues}
    own = [queue for queue in queues if queue["name"] in wanted]
    return [
        *judge_policies(own),
        *judge_nodes(nodes),
        *judge_replicas(own, len(nodes)),
        judge_limits(limits),
    ]


def judge_policies(queues: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Whether a policy changes what the queues of the worker say of themselves."""
    findings = []
    for queue in queues:
        definition = queue.get("effective_policy_definition") or {}
        policies = [queue.get("policy"), queue.get("operator_policy")]
        named = " and ".join(str(name) for name in policies if name)
        findings += [
            mend(
                "policies",
                f"policy {named} sets {key} = {value} on queue {queue['name']}: {_HARMFUL[key]}",
                f"Let the pattern of policy {named} not match {queue['name']}, or take {key} out of it.",
            )
            for key, value in definition.items()
            if key in _HARMFUL and _takes_effect(key, value, queue.get("arguments") or {})
        ]
    return findings or [ok("policies", "no policy changes the queues")]


def _takes_effect(key: str, value: Any, arguments: Mapping[str, Any]) -> bool:
    own = arguments.get(_NAMED_BY_THE_QUEUE.get(key, ""))
    if own is None:
        return True
    return isinstance(own, int) and isinstance(value, int) and value < own


def judge_nodes(nodes: Iterable[Mapping[str, Any]]) -> list[Finding]:
    """Whether a node is down, parted from the others, out of memory or disk, or near a limit of its machine."""
    findings = []
    for node in nodes:
        name = node.get("name")
        wrong = [
            text
            for told, text in (
                (not node.get("running", True), "is not running"),
                (bool(node.get("partitions")), "does not see all others (a network partition)"),
                (node.get("mem_alarm"), "has a memory alarm: publishers are blocked"),
                (node.get("disk_free_alarm"), "has a disk alarm: publishers are blocked"),
            )
            if told
        ]
        if wrong:
            remedy = "See 'rabbitmq-diagnostics alarms' and 'rabbitmqctl cluster_status'; confirmations wait until then."
            findings.append(mend("nodes", f"node {name} {', and '.join(wrong)}", remedy))
        used, total = node.get("fd_used") or 0, node.get("fd_total") or 0
        if total and used > 0.9 * total:
            text = f"node {name} uses {used} of {total} file descriptors: soon it accepts no connection"
            findings.append(note("nodes", text, "Raise the limit of open files of RabbitMQ."))
    return findings or [ok("nodes", "no node has an alarm")]


def judge_replicas(queues: Iterable[Mapping[str, Any]], nodes: int) -> list[Finding]:
    """Whether the queues of a cluster survive the loss of a node."""
    lacking = [queue["name"] for queue in queues if _alone(queue)]
    if nodes > 1 and lacking:
        text = (
            f"{len(lacking)} queues ({lacking[0]} …) have one replica in a cluster of {nodes} nodes"
        )
        return [note("replicas", text, "Run 'rabbitmq-queues grow NODE all' for each node.")]
    return []


def _alone(queue: Mapping[str, Any]) -> bool:
    return len(queue.get("members") or ()) == 1


def judge_limits(limits: Mapping[str, int]) -> Finding:
    """Whether the virtual host lets workers and publishers in."""
    most = limits.get("max-connections", -1)
    if 0 <= most < 10 * _CONNECTIONS_OF_A_WORKER:
        return note(
            "limits",
            f"the virtual host allows {most} connections, and each worker process needs {_CONNECTIONS_OF_A_WORKER}",
            "Raise it with 'rabbitmqctl set_vhost_limits'.",
        )
    return ok(
        "limits", f"at most {most} connections" if most >= 0 else "connections are not limited"
    )
