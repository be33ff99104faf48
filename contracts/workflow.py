"""Workflows: what runs in a workspace, step by step, along a graph, and what it leaves behind.

The contracts stand in modules of their own: `workflow_runs`, `workflow_steps`, `workflow_dag`, `workflow_facts`.
Every event that changes an entity is first recorded in `lifecycle_events` (its id is the idempotency key) and then
merged into the entity's row. A workspace's key is `session_id`, and all that is made in it names it.
"""

from contracts import workflow_dag as dag
from contracts import workflow_facts as facts
from contracts import workflow_runs as runs
from contracts import workflow_steps as steps
from contracts.registry import ContractFamily

FAMILY = ContractFamily(
    "workflow",
    (
        *("workspace.#", "project.#", "run.#", "step.#", "dag.#", "checkpoint.#"),
        *("message.#", "cost.#", "approval.#", "branch.#", "file.#"),
    ),
    (
        runs.WorkspaceCreated,
        runs.WorkspaceUpdated,
        runs.WorkspaceHeartbeat,
        runs.WorkspaceArchived,
        runs.WorkspaceRestored,
        runs.WorkspaceDeleted,
        runs.ProjectCreated,
        runs.ProjectUpdated,
        runs.RunCreated,
        runs.RunPlanning,
        runs.RunStarted,
        runs.RunPaused,
        runs.RunWaitingApproval,
        runs.RunResumed,
        runs.RunHeartbeat,
        runs.RunCompleted,
        runs.RunFailed,
        runs.RunMeasured,
        steps.StepCreated,
        steps.StepStarted,
        steps.StepProgressed,
        steps.StepPaused,
        steps.StepWaitingApproval,
        steps.StepResumed,
        steps.StepCompleted,
        steps.StepFailed,
        steps.StepSkipped,
        dag.DagDefined,
        dag.DagNodeAdded,
        dag.DagNodeChanged,
        dag.DagEdgeAdded,
        facts.CheckpointSaved,
        facts.MessageSent,
        facts.CostRecorded,
        steps.ApprovalRequested,
        steps.ApprovalResolved,
        facts.BranchCreated,
        facts.FileRecorded,
    ),
)
