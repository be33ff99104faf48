"""The rationale of decisions under a key from the settings: nowhere in the database as it was said, and read by old keys."""

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from support.broker import client
from support.tables import connected, rows
from support.workers import drain

from contracts import decisions
from contracts.identifiers import uuid7
from worker.errors import Misconfigured
from worker.settings import Settings
from worker.store.encryption import Cipher, cipher_of, key_id

SECRET = "Because Müller's contract ends in March."
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()


def made():
    content = decisions.DecisionMade(
        decision_id=uuid7(), session_id=uuid7(), decision_type="plan", decision_rationale=SECRET
    )
    return content.event(source="/agents/a")


def with_keys(settings, *keys: str):
    return settings.model_copy(update={"encryption_keys": SecretStr(",".join(keys))})


async def whole_dump(url: str) -> str:
    """Every row of every table as text."""
    async with connected(url) as connection:
        tables = await connection.fetch(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        )
        found = [await connection.fetch(f"SELECT t::text FROM {name} t") for (name,) in tables]
    return "\n".join(text for table in found for (text,) in table)


async def test_the_rationale_is_nowhere_as_it_was_said(settings):
    """Neither in its row nor in lifecycle_events nor in the outbox; a repetition is still a duplicate, another text a conflict."""
    encrypting = with_keys(settings, NEW, OLD)
    event = made()
    other = event.model_copy(update={"data": {**event.data, "decision_rationale": "Because."}})
    async with client(settings.broker) as agent:
        await agent.publish(event)
        await drain(encrypting)
        await agent.publish(event, other)
        await drain(encrypting)
        confirmed = await agent.confirmed(3)
    assert {name: len(items) for name, items in confirmed.items() if items} == {
        "persisted": 1, "duplicate": 1, "rejected": 1,
    }  # fmt: skip
    assert confirmed["rejected"][0]["reason"] == "conflict"
    assert SECRET not in await whole_dump(settings.database)
    [row] = await rows(settings.database, "SELECT decision_rationale FROM agent_decisions")
    [record] = await rows(
        settings.database, "SELECT data->>'decision_rationale' AS text FROM lifecycle_events"
    )
    for stored in (row["decision_rationale"], record["text"]):
        assert stored.startswith(f"encrypted:{key_id(NEW)}:")
        assert Cipher([NEW]).decrypt(stored) == SECRET


async def test_without_keys_it_is_stored_as_it_was_said(settings):
    """Encryption is off where no key is set, and what was stored then reads as it is when it is on."""
    async with client(settings.broker) as agent:
        await agent.publish(made())
        await drain(settings)
    [row] = await rows(settings.database, "SELECT decision_rationale FROM agent_decisions")
    assert row["decision_rationale"] == SECRET
    assert Cipher([NEW]).decrypt(row["decision_rationale"]) == SECRET


def test_a_key_is_rotated_by_putting_another_in_front():
    """The newest encrypts, every listed one decrypts, one that is gone is named, and a change of the text is noticed."""
    before = Cipher([OLD]).encrypt(SECRET)
    rotated = Cipher([NEW, OLD])
    assert rotated.decrypt(before) == SECRET
    assert rotated.encrypt(SECRET).startswith(f"encrypted:{key_id(NEW)}:")
    with pytest.raises(Misconfigured, match=key_id(OLD)):
        Cipher([NEW]).decrypt(before)
    place = len(before) - 40
    altered = before[:place] + ("A" if before[place] != "A" else "B") + before[place + 1 :]
    with pytest.raises(Misconfigured, match="altered"):
        rotated.decrypt(altered)
    assert cipher_of(()) is None


def test_a_wrong_key_is_named_by_its_place_and_never_shown(monkeypatch, tmp_path):
    """Settings refuse it before anything is stored; keys may come from a file."""
    given = {"database_url": "postgresql://h/d", "amqp_url": "amqp://h/"}
    monkeypatch.setenv("WORKER_ENCRYPTION_KEYS", f"{NEW}, tooshort")
    with pytest.raises(Misconfigured, match=r"WORKER_ENCRYPTION_KEYS: .*key 2") as refused:
        Settings.load(**given)
    assert NEW not in str(refused.value)
    assert "tooshort" not in str(refused.value)
    monkeypatch.delenv("WORKER_ENCRYPTION_KEYS")
    file = tmp_path / "keys"
    file.write_text(f"{NEW},{OLD}\n")
    monkeypatch.setenv("WORKER_ENCRYPTION_KEYS_FILE", str(file))
    settings = Settings.load(**given)
    assert settings.encryption == (NEW, OLD)
    assert NEW not in repr(settings)
