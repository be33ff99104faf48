"""Workspaces, runs, their steps and graphs, and what they leave behind: tables of the family `workflow`.

The tables stand in modules of their own, as the contracts do. All of them are owned by their run, a run and a project by
their session (the wire's workspace), and each has `session_id`, by which readers are kept apart.
"""

from contracts import workflow as contract
from worker.families.workflow.dag import DAG_NODE, dag_edges
from worker.families.workflow.facts import (
    branches,
    checkpoints,
    cost_records,
    files,
    messages,
    workflow_metrics,
)
from worker.families.workflow.runs import PROJECT, RUN, SESSION
from worker.families.workflow.steps import APPROVAL_REQUEST, STEP
from worker.store.declaration import Fact, Family

REVISION = "0007"
"""The migration that these tables need."""

FAMILY = Family(
    contract=contract.FAMILY,
    tables=(
        SESSION,
        PROJECT,
        RUN,
        STEP,
        DAG_NODE,
        APPROVAL_REQUEST,
        Fact("dag.edge_added", dag_edges),
        # Where the archived copy lies is known once there is one.
        Fact("checkpoint.saved", checkpoints, later=("archive_path",)),
        Fact("message.sent", messages, event_time=("timestamp",)),
        Fact("cost.recorded", cost_records, event_time=("timestamp",)),
        Fact("branch.created", branches),
        Fact("run.measured", workflow_metrics, event_time=("timestamp",)),
        Fact("file.recorded", files),
    ),
    revision=REVISION,
)
