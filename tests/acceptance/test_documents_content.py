"""What the documents say is so: links, code, settings, metrics, alerts, log events, floors, the worked example."""

import ast
import importlib
import re
import tomllib
from datetime import UTC, datetime
from itertools import permutations
from typing import get_args
from uuid import UUID

import pytest
from support.documents import (
    ARCHITECTURE,
    OPERATIONS,
    ROOT,
    blocks,
    documents,
    inline_code,
    links,
    new_family_files,
    slugs,
    table,
)
from support.events import decoded

from contracts.confirmation import REASONS
from contracts.envelope import Event
from contracts.registry import contract_types
from worker import telemetry
from worker.cli.output import NOTHING
from worker.crash_points import CrashPoint
from worker.families.task_lifecycle import TASK
from worker.operations.tenancy_checks import ROLES
from worker.settings import Settings, environment_name
from worker.store.merge import fold_batch, visible

ALERTS = ROOT / "deploy" / "prometheus-alerts.yml"
by_name = pytest.mark.parametrize("path", documents(), ids=lambda path: path.name)


@by_name
def test_every_relative_link_leads_somewhere(path):
    """To a file that is there, and to a heading that it has."""
    for target in links(path):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), f"{path.name}: {target}"
        if anchor:
            assert anchor in slugs(linked), f"{path.name}: {target}"


@by_name
def test_every_path_that_is_named_is_there(path):
    """But for the files of the family that is made up."""
    for code in inline_code(path):
        found = re.fullmatch(
            r"(?:worker|contracts|alembic|tests|deploy|docs|requirements)/[\w./-]+", code
        )
        if found and "greeting" not in code:
            assert (ROOT / code).exists(), f"{path.name}: {code}"


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.place)
def test_python_in_documents_compiles_and_its_imports_resolve(block):
    tree = ast.parse(block.text)
    if ast.dump(tree) in _new_family():
        return  # a family that is made up; its test makes it
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), f"{block.place}: {node.module}.{alias.name}"


def _new_family():
    return {ast.dump(ast.parse(text)) for text in new_family_files().values()}


def test_the_example_of_a_new_family_is_the_one_that_is_tested():
    """Word for word, but for line breaks: tests/acceptance/test_new_family.py runs it."""
    shown = {ast.dump(ast.parse(block.text)) for block in blocks("python")}
    assert len(_new_family()) == 3
    assert _new_family() <= shown


def test_every_setting_is_explained_with_its_default():
    """As `worker run --help` has it."""
    rows = {row[0]: row for row in table(OPERATIONS, "variable")}
    assert set(rows) == {f"`{environment_name(name)}`" for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        _, default, meaning = rows[f"`{environment_name(name)}`"]
        special = {
            "name": "host-pid",
            "families": "all",
            "crash_point": "none",
            "encryption_keys": "none",
            "management_url": "none",
            "checkpoint_archive": "none",
            "archive": "none",
            "retention": "none",
            "tenant_of_user": "none",
            "allow_unsafe_database": "false",
        }
        expected = "required" if field.is_required() else special.get(name, str(field.default))
        assert default == expected, name
        assert meaning, name


def _metrics():
    """Each metric's name as it is asked for, with its labels."""
    for family in telemetry.REGISTRY.collect():
        name = f"{family.name}_total" if family.type == "counter" else family.name
        collector = telemetry.REGISTRY._names_to_collectors[name]
        yield name, collector._labelnames


def test_every_metric_is_explained():
    """With its labels, something to look at and something to do."""
    rows = {row[0].strip("`"): row for row in table(OPERATIONS, "metric")}
    assert set(rows) == {name for name, _ in _metrics()}
    for name, labels in _metrics():
        _, told, look, remedy = rows[name]
        assert told == ", ".join(labels), name
        assert name in look, name
        assert remedy, name


def test_no_document_asks_for_a_metric_that_is_not_there():
    """A metric that was renamed would leave an expression that never fires."""
    known = {"worker_checks", *ROLES}
    for name, _ in _metrics():
        known |= {name, f"{name}_bucket"}
    for path in documents():
        for code in inline_code(path):
            asked = set(re.findall(r"\b(worker_[a-z_]+)(?=[ ({\[)]|$)", code))
            assert asked <= known, f"{path.name}: {asked - known}"


def test_every_alert_rule_is_explained_and_its_expression_is_the_same():
    text = ALERTS.read_text()
    told = OPERATIONS.read_text()
    for name, expression in re.findall(r"- alert: (\w+)\n +expr: (.+)", text):
        assert name in told, name
        if "worker_" in expression:
            assert f"`{expression}`" in told, name


def test_every_log_event_is_explained():
    """What the worker logs, and nothing else."""
    logged = set()
    for path in (ROOT / "worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if _is_log_call(node):
                logged.add(node.args[0].value)
    told = {
        event for row in table(OPERATIONS, "event") for event in re.findall(r"`([^`]+)`", row[0])
    }
    assert told == logged


def _is_log_call(node):
    if not (isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)):
        return False
    match node.func:
        case ast.Attribute(attr="info" | "warning" | "error", value=ast.Name(id="log")):
            return True
        case ast.Attribute(attr="info" | "warning" | "error", value=ast.Attribute(attr="_log")):
            return True
        case ast.Name(id="say"):  # log.info or log.error, as the case may be
            return True
    return False


def test_every_reason_of_a_rejection_has_a_remedy():
    rows = {row[0].strip("`"): row for row in table(OPERATIONS, "reason")}
    assert set(rows) == set(REASONS)
    assert all(all(row) for row in rows.values())


def test_every_crash_point_is_explained():
    rows = {row[0].strip("`") for row in table(ARCHITECTURE, "crash point")}
    assert set(get_args(CrashPoint)) - {"none"} <= rows


def test_the_floors_are_those_that_are_held():
    configuration = tomllib.loads((ROOT / "pyproject.toml").read_text())
    floors = configuration["tool"]["importlinter"]["contracts"][0]["layers"]
    assert "\n".join(floors) in {block.text.strip() for block in blocks("text")}


def test_the_house_is_as_it_is_drawn():
    """Every file and folder in the tree is there."""
    [tree] = [block.text for block in blocks("text") if block.text.startswith("contracts/ ")]
    folder = ""
    for line in tree.splitlines():
        names = re.findall(
            r"(?:^| )([\w<>/]+(?:\.py|/))(?= |$)", re.split(r" {3,}", line.strip())[0]
        )
        if not line.startswith(" "):
            folder = ""
        for name in names:
            if "<" not in name:
                assert (ROOT / folder / name).exists(), f"{folder}{name}"
        if not line.startswith(" "):
            [folder] = names


@by_name
def test_documents_are_written_one_sentence_a_line(path):
    """So that a change of a sentence is a change of a line."""
    if path.name in ("contracts.md", "data-model.md", "CHANGELOG.md"):
        pytest.skip("generated, or a list of paragraphs")
    text = re.sub(r"^([ ]*)```.*?^\1```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`]*`", "`", text)
    for line in text.splitlines():
        if line.startswith("|"):
            continue
        assert not re.search(r"[a-z)`]\. [A-Z]", line), f"{path.name}: {line}"


def test_the_glossary_is_sorted():
    terms = [row[0].casefold() for row in table(ROOT / "docs" / "glossary.md", "term")]
    assert terms == sorted(terms)
    assert len(set(terms)) == len(terms)


def test_the_changelog_keeps_its_form():
    """Keep a Changelog 1.1.0: versions, and six kinds of change."""
    text = (ROOT / "CHANGELOG.md").read_text()
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
    for heading in re.findall(r"^## (.+)$", text, re.MULTILINE):
        assert re.fullmatch(r"\[Unreleased\]|\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading)


# --- the worked example of a merge ---

TASK_ID = UUID("00000000-0000-7000-8000-00000000aaaa")


def _id(text):
    return UUID(f"00000000-0000-7000-8000-{text.removeprefix('…'):0>12}")


def _time(text):
    return datetime.fromisoformat(f"2026-11-22T{text}").replace(tzinfo=UTC)


def _event(row):
    _, type_, time, attempt, event_id, says = (cell.replace("`", "") for cell in row)
    data = {"task_id": TASK_ID}
    if attempt != NOTHING:
        data["attempt"] = int(attempt)
    if says != NOTHING:
        name, _, value = says.partition(" ")
        data[name] = value
    _, contract = contract_types()[type_]
    if "attempt" not in contract.model_fields:
        data.pop("attempt", None)
    return contract(**data).event(source="/agents/a", id=_id(event_id), time=_time(time))


def test_the_worked_example_of_a_merge_holds():
    """In each of the 720 orders."""
    events: list[Event] = [_event(row) for row in table(ARCHITECTURE, "arrives")]
    messages = decoded(*events)
    told = {row[0].strip("`"): row[1:] for row in table(ARCHITECTURE, "register")}
    clocks = {}
    for name, (clock, _) in told.items():
        attempt, rank, time, event_id = clock.strip("`").split()
        clocks[name] = f"{attempt}{rank}{time}{_id(event_id).hex}"
    for order in permutations(messages):
        [folded] = fold_batch(TASK, order, frozenset()).values()
        assert folded.clocks == clocks
        assert (folded.attempt, folded.version, folded.placeholder) == (2, 6, False)
        assert folded.created_at == _time("10:00")
    for name in ("status", "agent_id"):
        assert visible(TASK, folded, name) == told[name][1]
    assert visible(TASK, folded, "started_at") == _time(told["started_at"][1])
    assert visible(TASK, folded, "completed_at") == _time(told["completed_at"][1][:5])
    assert told["error_message"][1].startswith("NULL")
    assert visible(TASK, folded, "error_message") is None
