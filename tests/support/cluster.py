"""A RabbitMQ cluster of three nodes on this machine, each of which can be killed, and what its queues say of themselves."""

import contextlib
import json
import os
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.sandbox import RabbitMQ
from worker.sandbox.leftovers import Record
from worker.sandbox.node import Realm, node_name, start_node, start_port_mapper
from worker.sandbox.packages import install_rabbitmq
from worker.sandbox.sandbox import cache_folder
from worker.sandbox.service import Surroundings

SIZE = 3


@dataclass(frozen=True)
class Cluster:
    """Nodes by their Erlang names; every one knows the same virtual hosts, users and queues."""

    nodes: dict[str, RabbitMQ]

    def url(self, virtual_host: str) -> str:
        """The address that names every node."""
        urls = [node.address.url(virtual_host) for node in self.nodes.values()]
        login, _, rest = urls[0].partition("@")
        hosts = ",".join(f"{node.address.host}:{node.address.port}" for node in self.nodes.values())
        return f"{login}@{hosts}/{rest.partition('/')[2]}"

    def evaluate(self, expressions: str) -> str | None:
        """Evaluate Erlang on a node that runs."""
        node = next(node for node in self.nodes.values() if node.lifecycle.pid is not None)
        return node.administration.evaluate(expressions)

    def queues(self, virtual_host: str) -> dict[str, dict[str, Any]]:
        """Leader, members, and members that are online of each quorum queue; nothing while that cannot be told."""
        text = self.evaluate(
            "binary_to_list(rabbit_json:encode("
            "[begin {resource, _, queue, Name} = proplists:get_value(name, Queue), "
            "#{queue => Name, facts => maps:from_list(proplists:delete(name, Queue))} end "
            f'|| Queue <- rabbit_amqqueue:info_all(<<"{virtual_host}">>, [name, leader, members, online])])).'
        )
        found = json.loads(text.strip('"')) if text else []  # erl_call prints an Erlang string
        return {one["queue"]: one["facts"] for one in found if one["facts"]["members"]}

    def complete(self, virtual_host: str) -> bool:
        """Whether every queue has a leader, and a member on every node that takes part."""
        queues = self.queues(virtual_host).values()
        return bool(queues) and all(
            queue["leader"] and len(queue["online"] or ()) == SIZE for queue in queues
        )

    def move_leader(self, virtual_host: str, queue: str, node: str) -> None:
        """Have a queue led by another of its members."""
        self.evaluate(
            f'{{ok, Q}} = rabbit_amqqueue:lookup({{resource, <<"{virtual_host}">>, queue, <<"{queue}">>}}), '
            f"rabbit_quorum_queue:transfer_leadership(Q, '{node}').",
        )

    def rebalance(self) -> None:
        """Spread the leaders of all queues over the nodes, as `rabbitmq-queues rebalance quorum` does."""
        self.evaluate('rabbit_amqqueue:rebalance(quorum, <<".*">>, <<".*">>).')


@contextlib.contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Three nodes that have found each other; what a killed test run leaves of them, the next sandbox removes."""
    cache = cache_folder(os.environ)
    with (
        tempfile.TemporaryDirectory(prefix="agent-persistence-cluster-") as directory,
        Record.open(cache, Path(directory)) as record,
        contextlib.ExitStack() as closing,
    ):
        surroundings = Surroundings(
            directory=Path(directory),
            cache=cache,
            environment=os.environ,
            say=lambda line: None,
            cancelled=threading.Event(),
            closing=closing,
            started=record.add,
        )
        scripts = install_rabbitmq(surroundings)
        realm = Realm()
        start_port_mapper(realm, scripts, surroundings)
        names = [node_name() for _ in range(SIZE)]
        settings = {
            "cluster_formation.peer_discovery_backend": "classic_config",
            **{
                f"cluster_formation.classic_config.nodes.{at}": name
                for at, name in enumerate(names, 1)
            },
        }

        def start(name: str) -> RabbitMQ:
            home = Path(directory, name.partition("@")[0])
            return start_node(
                "local", scripts, surroundings, settings, (), realm=realm, name=name, home=home
            )

        with ThreadPoolExecutor(SIZE) as threads:  # each waits for the others
            cluster = Cluster(dict(zip(names, threads.map(start, names), strict=True)))
        yield cluster
