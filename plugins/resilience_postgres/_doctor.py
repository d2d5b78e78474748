"""What is done once, by administrators: the table is made, and what the storage leans on is looked at."""

from __future__ import annotations

from resilience import clock
from resilience_postgres._connection import Connection
from resilience_postgres._errors import REACH, STANDBY, Fault, translated
from resilience_postgres._schema import FORM, Statement
from resilience_postgres._waiting import conversation, in_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from resilience_postgres._listener import Listener
    from resilience_postgres._pool import Pool
    from resilience_postgres._schema import Schema

    Finding = tuple[str, bool, str, str]
    """What was looked at, whether it is well, what was found, and what to do if it is not."""

_PATIENCE: Final = 10.0

_LOOK: Final = """\
SELECT current_setting('server_version'), quote_ident(current_user), current_database()::text,
    pg_is_in_recovery()::text, current_setting('transaction_read_only'), pg_encoding_to_char(d.encoding)::text,
    current_setting('fsync'), obj_description(c.oid, 'pg_class'), pg_get_userbyid(c.relowner)::text,
    concat_ws(' and ',
        CASE WHEN json.oid IS NULL THEN '{table}_json' END, CASE WHEN save.oid IS NULL THEN '{table}_save' END),
    CASE WHEN NOT has_schema_privilege(n.oid, 'USAGE') THEN 'USAGE ON SCHEMA {schema}' END,
    (SELECT string_agg(wanted, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) wanted
        WHERE NOT has_table_privilege(c.oid, wanted)) || ' ON {table}',
    CASE WHEN NOT has_function_privilege(save.oid, 'EXECUTE') THEN 'EXECUTE ON PROCEDURE {table}_save' END,
    CASE WHEN NOT has_function_privilege(json.oid, 'EXECUTE') THEN 'EXECUTE ON FUNCTION {table}_json' END
FROM pg_database d
    LEFT JOIN pg_namespace n ON n.nspname = '{schema}'
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = '{name}'
    LEFT JOIN pg_proc save ON save.pronamespace = n.oid AND save.proname = '{name}_save'
    LEFT JOIN pg_proc json ON json.pronamespace = n.oid AND json.proname = '{name}_json'
WHERE d.datname = current_database()"""
"""Looked up in the catalogue, which anybody may read: of a schema without USAGE nothing else may be asked."""

_COUNT: Final = "SELECT count(*) FILTER (WHERE set_aside IS NULL)::text, count(set_aside)::text FROM {table}"


def make(dsn: bytes, schema: Schema, place: str) -> str:
    """Make schema, table and procedure, or bring them up to date, and say so.

    :raises StorageUnavailable: the server does not answer, or does not permit it.
    """
    script = f"SELECT pg_advisory_xact_lock(hashtext('{schema.table}'));\n{schema.ddl}"  # one at a time
    try:
        connection = Connection(dsn, _PATIENCE)
        try:
            in_thread(connection.script(script.encode()), clock.monotonic() + _PATIENCE)
        finally:
            connection.close()
    except Fault as fault:
        raise translated(fault, "making", place, schema.table, None) from fault
    return f"the table {schema.table} is there"


def examine(pool: Pool, schema: Schema, listener: Listener | None, *, durable: bool) -> list[Finding]:
    """Look at server, table, rights, push and records."""
    table, (space, _, name) = schema.table, schema.table.partition(".")
    findings: list[Finding] = []
    try:
        found = _ask(pool, _LOOK.format(table=table, schema=space, name=name))
        version, user, database, recovers, read_only, encoding, fsync, form, owner, absent, *missing = found
        findings += [
            ("server", True, f"PostgreSQL {version}, user {user}, database {database}", ""),
            _primary(user, recovers=recovers == "true", read_only=read_only == "on"),
            ("encoding", encoding == "UTF8", encoding, "keep the table in a database whose encoding is UTF8"),
            (
                "durability",
                fsync == "on" or not durable,
                f"the server's fsync is {fsync}, a commit {'waits' if durable else 'does not wait'} for the disk",
                "set fsync = on in the server, or RESILIENCE_POSTGRES__DURABILITY=none",
            ),
            _table(table, form, owner, absent),
            *([_rights(user, [right for right in missing if right])] if form == FORM else []),
            _push(listener),
        ]
        if form == FORM and not any(missing):
            findings += _records(table, *_ask(pool, _COUNT.format(table=table)))
    except Fault as fault:
        findings.append(("server", False, str(fault), fault.advice or REACH))
    return findings


def _primary(user: str, *, recovers: bool, read_only: bool) -> Finding:
    if recovers:
        return ("primary", False, "it is a standby, which only reads", STANDBY)
    return (
        "primary",
        not read_only,
        f"it only lets {user} read: default_transaction_read_only is on" if read_only else "it reads and writes",
        f"ALTER ROLE {user} SET default_transaction_read_only = off; or set it off in the database or the URL",
    )


def _table(table: str, form: str, owner: str, absent: str) -> Finding:
    init = "run `resilience storage init` with the URL of a user who may make tables"
    if not owner:
        return ("table", False, f"{table}: there is none", init)
    if form == FORM:
        return ("table", not absent, f"{table}: {f'{absent} is missing' if absent else form}", init)
    other = "name another table in RESILIENCE_POSTGRES__TABLE, and make it with `resilience storage init`"
    if form.startswith("resilience "):
        detail = f"{table}: its form is {form!r}, and this version knows {FORM!r}"
        return ("table", False, detail, f"use the version of resilience-framework that made it, or {other}")
    return ("table", False, f"{table} belongs to {owner} and is no table of resilience", other)


def _rights(user: str, missing: list[str]) -> Finding:
    detail = f"missing: {', '.join(missing)}" if missing else "all that is needed"
    return ("rights", not missing, detail, " ".join(f"GRANT {right} TO {user};" for right in missing))


def _records(table: str, records: str, damaged: str) -> list[Finding]:
    return [
        ("records", True, records, ""),
        (
            "damaged records",
            damaged == "0",
            f"{damaged} set aside for inspection",
            f"look at those of {table} whose set_aside is not null, then delete them",
        ),
    ]


def _push(listener: Listener | None) -> Finding:
    if listener is None:
        return ("listener", True, "off: a record is trusted for RESILIENCE_MAX_STALENESS", "")
    return (
        "listener",
        not listener.why,
        f"off: {listener.why}" if listener.why else "others' commits are heard of at once",
        listener.advice or "see the server's log, or set RESILIENCE_POSTGRES__PUSH=false",
    )


def _ask(pool: Pool, text: str) -> list[str]:
    result = in_thread(conversation(pool, Statement(text), [], again=True), clock.monotonic() + _PATIENCE)
    return [(result.get_value(0, column) or b"").decode() for column in range(result.nfields)]
