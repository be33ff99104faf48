"""Lives of workspaces, runs, steps and graphs as hypothesis makes them: few keys, few times, so that every tie occurs."""

from datetime import timedelta
from itertools import combinations
from uuid import UUID

from hypothesis import strategies as st

from contracts import Event, EventData
from contracts import workflow_dag as dag
from contracts import workflow_facts as facts
from contracts import workflow_runs as runs
from contracts import workflow_steps as steps
from support.lives import START


def keys(kind: int, many: int) -> list[UUID]:
    first = 0x019A_0000_0000_7000_8000_0000_0000_0000 + kind * 0x1000
    return [UUID(int=first + number) for number in range(many)]


SESSIONS, PROJECTS, RUNS, STEPS, APPROVALS = (keys(kind, 2) for kind in range(1, 6))
NODES = keys(6, 4)
PAIRS = list(combinations(NODES, 2))

_session, _project, _run, _step, _node, _approval = map(
    st.sampled_from, (SESSIONS, PROJECTS, RUNS, STEPS, NODES, APPROVALS)
)
_text = st.none() | st.sampled_from(["one", "two", "three"])
_said = st.sampled_from(["one", "two", "three"])
_object = st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2)


@st.composite
def _definition(draw: st.DrawFn) -> EventData:
    """A graph of some of the nodes, its edges from smaller to larger: no cycle."""
    nodes = draw(st.lists(_node, min_size=1, max_size=4, unique=True))
    pairs = [pair for pair in PAIRS if set(pair) <= set(nodes)]
    chosen = draw(st.lists(st.sampled_from(pairs), unique=True, max_size=3)) if pairs else []
    return dag.DagDefined(
        run_id=draw(_run),
        session_id=SESSIONS[0],
        nodes=[
            {"node_id": node, "node_type": draw(st.sampled_from(["agent", "control"]))}
            for node in nodes
        ],
        edges=[{"from_node_id": one, "to_node_id": other} for one, other in chosen],
    )


def _of(contract: type[EventData], **members: st.SearchStrategy) -> st.SearchStrategy[EventData]:
    return st.builds(contract, **members)


_workspaces = st.one_of(
    _of(runs.WorkspaceCreated, session_id=_session, name=_said, user_id=_text, metadata=_object),
    _of(runs.WorkspaceUpdated, session_id=_session, name=_text, resource_limits=_object),
    *(
        _of(contract, session_id=_session)
        for contract in (
            *(runs.WorkspaceHeartbeat, runs.WorkspaceArchived),
            *(runs.WorkspaceRestored, runs.WorkspaceDeleted),
        )
    ),
    _of(runs.ProjectCreated, project_id=_project, session_id=_session, name=_said),
    _of(runs.ProjectUpdated, project_id=_project, name=_text, description=_text),
)
_of_runs = st.one_of(
    _of(
        runs.RunCreated,
        run_id=_run,
        session_id=_session,
        mode=st.sampled_from(["one_shot", "deep_research"]),
        project_id=st.none() | _project,
        model=_text,
        checkpoint_frequency_minutes=st.integers(1, 3),
    ),
    _of(runs.RunStarted, run_id=_run, agent=_text, model=_text),
    _of(runs.RunCompleted, run_id=_run, metadata=_object),
    _of(runs.RunFailed, run_id=_run, error_message=_said),
    *(
        _of(contract, run_id=_run)
        for contract in (
            *(runs.RunPlanning, runs.RunPaused, runs.RunWaitingApproval),
            *(runs.RunResumed, runs.RunHeartbeat),
        )
    ),
)
_of_steps = st.one_of(
    _of(
        steps.StepCreated,
        step_id=_step,
        run_id=_run,
        session_id=_session,
        step_number=st.integers(0, 3),
        inputs=_object,
    ),
    _of(steps.StepStarted, step_id=_step, agent=_text, inputs=_object),
    _of(steps.StepProgressed, step_id=_step, progress_percentage=st.integers(0, 100)),
    _of(steps.StepCompleted, step_id=_step, outputs=_object),
    _of(steps.StepFailed, step_id=_step, error_message=_said, outputs=_object),
    *(
        _of(contract, step_id=_step)
        for contract in (
            *(steps.StepPaused, steps.StepWaitingApproval),
            *(steps.StepResumed, steps.StepSkipped),
        )
    ),
    _of(
        steps.ApprovalRequested,
        approval_id=_approval,
        run_id=_run,
        session_id=_session,
        step_id=st.none() | _step,
        context_snapshot=_object,
    ),
    _of(
        steps.ApprovalResolved,
        approval_id=_approval,
        status=st.sampled_from(["approved", "rejected", "modified"]),
        user_feedback=_text,
    ),
)
_graphs = st.one_of(
    _definition(),
    _of(
        dag.DagNodeAdded,
        node_id=_node,
        run_id=_run,
        session_id=_session,
        node_type=st.just("approval"),
    ),
    _of(
        dag.DagNodeChanged,
        node_id=_node,
        status=st.none() | st.sampled_from(["running", "paused", "completed", "failed"]),
        agent=_text,
        metadata=_object,
    ),
    _of(
        facts.MessageSent,
        run_id=_run,
        session_id=_session,
        step_id=st.none() | _step,
        sender=_said,
        recipient=_said,
        content=_said,
    ),
)
contents: st.SearchStrategy[EventData] = st.one_of(_workspaces, _of_runs, _of_steps, _graphs)


@st.composite
def workflow_lives(draw: st.DrawFn, most: int = 25) -> list[Event]:
    """Events of a few workspaces, runs, steps and graphs, some at the same time, each with an id of its own."""
    events: list[Event] = []
    drawn: set[tuple[UUID, UUID]] = set()
    for number, content in enumerate(draw(st.lists(contents, min_size=1, max_size=most))):
        if isinstance(content, dag.DagDefined):
            pairs = {(edge["from_node_id"], edge["to_node_id"]) for edge in content.edges}
            if pairs & drawn:  # an edge's row tells which message came first with it
                continue
            drawn |= pairs
        time = START + timedelta(minutes=draw(st.integers(0, 4)))
        identity = UUID(int=((0x019A_0000_0100 + number) << 80) | 0x7000_9000_0000_0000_0000)
        events.append(content.event(source="/agents/tester", id=identity, time=time))
    return events
