"""Who may publish for which tenant: rules, and what becomes of events that claim another's."""

import orjson
import pytest
from support.events import created, delivery

from contracts.registry import families
from worker import undelivered
from worker.decode import Decoder
from worker.errors import Misconfigured
from worker.message import Message, Properties
from worker.settings import Settings
from worker.tenants import TenantOfUser

RULES = TenantOfUser(("agents-{tenant}", "billing=acme", "agents-operator=*"))
DECODE = RULES.checked(Decoder(families()["task-lifecycle"]).decode)


def sent(body, user):
    return delivery(body, properties=Properties(user_id=user))


def numbered(tenant):
    extensions = {"sequence": "7", "epoch": "019a0000-0000-7000-8000-000000000001"}
    return orjson.loads(created(tenant=tenant).to_json()) | extensions


@pytest.mark.parametrize(
    ("user", "tenant", "may"),
    [
        ("agents-acme", "acme", True),
        ("agents-acme", "bee", False),
        ("agents-acme", "default", False),
        ("billing", "acme", True),
        ("billing", "bee", False),
        ("agents-operator", "bee", True),
        ("agents-{tenant}", "acme", False),
        ("Agents-acme", "acme", False),
        ("agents-acme", "", False),
        ("agents-", "", False),
        ("", "acme", False),
        (None, "acme", False),
    ],
)
def test_a_user_may_write_for_the_tenants_of_its_rules(user, tenant, may):
    """By pattern, by name, for all; nobody else, and nobody who is not named."""
    assert RULES.may_write(user, tenant or "-") is (may and bool(tenant))


def test_an_event_of_the_publishers_own_tenant_is_a_message():
    [item] = DECODE(sent(created(tenant="acme"), "agents-acme"))
    assert isinstance(item, Message)


@pytest.mark.parametrize(
    ("user", "told"),
    [
        (
            "agents-acme",
            "the user 'agents-acme' may not publish for the tenant 'bee' (WORKER_TENANT_OF_USER)",
        ),
        (
            None,
            "without the AMQP property user_id nobody may publish for the tenant 'bee' (WORKER_TENANT_OF_USER)",
        ),
    ],
)
def test_an_event_that_claims_anothers_tenant_is_rejected(user, told):
    """As invalid, naming tenantid, whole, and under nobody's tenant: neither letter nor number is the victim's."""
    body = orjson.dumps(numbered("bee"))
    [item] = DECODE(sent(body, user))
    assert (item.reason, item.errors) == (
        "invalid",
        [{"loc": ["tenantid"], "msg": told, "type": "invalid"}],
    )
    assert (item.body, item.tenant, list(item.numbers)) == (body, None, [])
    assert (item.type, item.id, item.source) == (
        "task.created",
        orjson.loads(body)["id"],
        "/agents/tester",
    )


def test_of_a_batch_only_the_stranger_is_rejected():
    """Each event by itself, with itself as the body of its letter."""
    events = [numbered("acme"), numbered("bee"), numbered("acme")]
    one, other, third = DECODE(sent(orjson.dumps(events), "agents-acme"))
    assert isinstance(one, Message)
    assert isinstance(third, Message)
    assert (other.index, other.reason, orjson.loads(other.body)) == (1, "invalid", events[1])


def test_what_is_rejected_for_another_reason_names_no_foreign_tenant():
    """A broken event, an unroutable message or a broken batch must not reach another's letters and ledger either."""
    broken = numbered("bee") | {"data": {}}
    [item] = DECODE(sent(orjson.dumps(broken), "agents-acme"))
    assert (item.reason, item.tenant, list(item.numbers)) == ("invalid", None, [])
    unroutable = RULES.checked(undelivered.unroutable)
    [item] = unroutable(sent(orjson.dumps(numbered("bee")), "agents-acme"))
    assert (item.reason, item.tenant, list(item.numbers)) == ("unroutable", None, [])
    both = orjson.dumps([numbered("bee"), numbered("acme")])
    [item] = unroutable(sent(both, "agents-acme"))
    assert [number.tenant for number in item.numbers] == ["acme"]
    [item] = unroutable(sent(orjson.dumps(numbered("acme")), "agents-acme"))
    assert (item.tenant, len(item.numbers)) == ("acme", 1)


@pytest.mark.parametrize("wrong", ["agents", "a={tenant}", "{tenant}{tenant}", "a=b c", "{other}"])
def test_a_rule_that_means_nothing_is_named(wrong):
    """At start, with the variable and the rule."""
    with pytest.raises(Misconfigured, match=r"WORKER_TENANT_OF_USER: .*is no rule"):
        Settings.load(database_url="postgresql://a", amqp_url="amqp://a", tenant_of_user=wrong)


def test_our_own_messages_name_their_user_only_where_it_is_asked_for():
    """The user of the URL, guest where it names none."""
    places = {"database_url": "postgresql://a", "tenant_of_user": "agents-{tenant}"}
    assert Settings.load(amqp_url="amqp://agents%2Da:x@h", **places).publishing_user == "agents-a"
    assert Settings.load(amqp_url="amqp://h", **places).publishing_user == "guest"
    assert (
        Settings.load(amqp_url="amqp://a@h", database_url="postgresql://a").publishing_user is None
    )
