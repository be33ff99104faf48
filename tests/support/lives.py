"""Lives of tasks, training jobs, agents and sessions as hypothesis makes them: few keys, few times, so that every kind of tie occurs."""

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import strategies as st

from contracts import Event, EventData, agents, decisions, knowledge
from contracts import task_lifecycle as task
from contracts import trajectory as training

START = datetime(2026, 1, 1, tzinfo=UTC)
TASKS = [UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0000 + number) for number in range(3)]
JOBS = [UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0100 + number) for number in range(2)]

SESSIONS = [UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0200 + number) for number in range(2)]
DECISIONS = [UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0300 + number) for number in range(2)]
KNOWN = [UUID(int=0x019A_0000_0000_7000_8000_0000_0000_0400 + number) for number in range(2)]

_task_id = st.sampled_from(TASKS)
_job_id = st.sampled_from(JOBS)
_session_id = st.sampled_from(SESSIONS)
_decision_id = st.sampled_from(DECISIONS)
_knowledge_id = st.sampled_from(KNOWN)
_agent_id = st.sampled_from(["infra-1", "Ärzte-2"])  # a key is text of any script
_maybe_level = st.none() | st.integers(0, 4)
_feedback = st.sampled_from(["approved", "rejected", "modified"])
_attempt = st.integers(1, 3)
_maybe_attempt = st.none() | _attempt
_text = st.sampled_from(["one", "two", "three"])
_object = st.none() | st.dictionaries(st.sampled_from("ab"), st.integers(0, 3), max_size=2)
_money = st.none() | st.sampled_from([0.5, 1.25, 3.0])


def _other_task(task_id: UUID) -> st.SearchStrategy[UUID | None]:
    return st.none() | st.sampled_from([other for other in TASKS if other != task_id])


_created = _task_id.flatmap(
    lambda task_id: st.builds(
        task.TaskCreated,
        task_id=st.just(task_id),
        request_text=_text,
        agent_id=st.none() | _text,
        priority=st.none() | st.integers(1, 10),
        parent_task_id=_other_task(task_id),
        metadata=_object,
    )
)
_depends = _task_id.flatmap(
    lambda task_id: st.builds(
        task.TaskDependsOn,
        task_id=st.just(task_id),
        depends_on_task_id=st.sampled_from([other for other in TASKS if other != task_id]),
    )
)

contents: st.SearchStrategy[EventData] = st.one_of(
    _created,
    st.builds(task.TaskApproved, task_id=_task_id, by=st.none() | _text),
    st.builds(task.TaskRejected, task_id=_task_id, attempt=_maybe_attempt),
    st.builds(task.TaskStarted, task_id=_task_id, agent_id=st.none() | _text, attempt=_attempt),
    st.builds(
        task.TaskCompleted,
        task_id=_task_id,
        output=_object,
        actual_resources=_object,
        attempt=_attempt,
    ),
    st.builds(
        task.TaskFailed,
        task_id=_task_id,
        error_message=_text,
        actual_resources=_object,
        attempt=_attempt,
    ),
    st.builds(task.TaskRetrying, task_id=_task_id, attempt=_attempt),
    st.builds(task.TaskCancelled, task_id=_task_id, attempt=_maybe_attempt),
    _depends,
    st.builds(
        training.TrainingQueued, job_id=_job_id, agent_id=_text, total_iterations=st.integers(1, 3)
    ),
    st.builds(training.TrainingStarted, job_id=_job_id),
    st.builds(
        training.TrainingProgressed,
        job_id=_job_id,
        current_iteration=st.integers(0, 3),
        metrics=_object,
        cost_usd=_money,
    ),
    st.builds(training.TrainingCompleted, job_id=_job_id, metrics=_object, cost_usd=_money),
    st.builds(training.TrainingFailed, job_id=_job_id, error_message=_text, cost_usd=_money),
    st.builds(training.TrainingCancelled, job_id=_job_id),
    st.builds(agents.AgentRegistered, agent_id=_agent_id, name=_text, type=_text, metadata=_object),
    st.builds(agents.AgentUpdated, agent_id=_agent_id, name=st.none() | _text),
    st.builds(
        agents.AgentHeartbeat,
        agent_id=_agent_id,
        status=st.none() | _text,
        tasks_completed=st.none() | st.integers(0, 3),
    ),
    st.builds(agents.AgentStatusChanged, agent_id=_agent_id, status=_text),
    st.builds(agents.AgentDeactivated, agent_id=_agent_id),
    st.builds(
        agents.SessionStarted, session_id=_session_id, agent_id=_agent_id, trust_level=_maybe_level
    ),
    st.builds(
        agents.SessionUpdated, session_id=_session_id, trust_level=_maybe_level, context=_object
    ),
    st.builds(agents.SessionPaused, session_id=_session_id),
    st.builds(agents.SessionResumed, session_id=_session_id),
    st.builds(agents.SessionCompleted, session_id=_session_id, context=_object),
    st.builds(agents.SessionExpired, session_id=_session_id),
    st.builds(
        decisions.DecisionMade,
        decision_id=_decision_id,
        session_id=_session_id,
        decision_type=_text,
        user_feedback=st.none() | _feedback,
    ),
    st.builds(decisions.DecisionReviewed, decision_id=_decision_id, user_feedback=_feedback),
    st.builds(
        knowledge.KnowledgeLearned,
        knowledge_id=_knowledge_id,
        agent_id=_agent_id,
        knowledge_type=st.just("pattern"),
        content=st.just({"do": "it"}),
    ),
    st.builds(
        knowledge.KnowledgeUsed,
        knowledge_id=_knowledge_id,
        usage_count=st.none() | st.integers(0, 3),
    ),
)


@st.composite
def lives(draw: st.DrawFn, most: int = 25) -> list[Event]:
    """Events of a few tasks, jobs, agents and sessions, some at the same time, each with an id of its own."""
    data = draw(st.lists(contents, min_size=1, max_size=most))
    events, pairs = [], set()
    for number, content in enumerate(data):
        if isinstance(content, task.TaskDependsOn):
            pair = (content.task_id, content.depends_on_task_id)
            if (
                pair in pairs
            ):  # the pair is the key: a second message of it would be a conflict or a duplicate
                continue
            pairs.add(pair)
        time = START + timedelta(minutes=draw(st.integers(0, 4)))
        identity = UUID(int=0x019A_0000_0000_7000_9000_0000_0000_0000 + number)
        events.append(content.event(source="/agents/tester", id=identity, time=time))
    return events
