"""What is done once, by administrators: the table is made, and what the storage leans on is looked at."""

from __future__ import annotations

from resilience import clock
from resilience_postgres._connection import Connection
from resilience_postgres._errors import Fault, translated
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
SELECT current_setting('server_version'), current_user::text, current_database()::text,
    pg_is_in_recovery()::text, pg_encoding_to_char(encoding)::text, current_setting('fsync'),
    obj_description(to_regclass('{table}'), 'pg_class'),
    concat_ws(', ',
        CASE WHEN NOT has_schema_privilege(to_regnamespace('{schema}'), 'USAGE') THEN 'USAGE on {schema}' END,
        (SELECT string_agg(wanted || ' on {table}', ', ')
         FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) wanted
         WHERE NOT has_table_privilege(to_regclass('{table}'), wanted)),
        CASE WHEN NOT has_function_privilege(to_regproc('{table}_save')::oid, 'EXECUTE')
             THEN 'EXECUTE on {table}_save' END)
FROM pg_database WHERE datname = current_database()"""

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
    table = schema.table
    try:
        found = _ask(pool, _LOOK.format(table=table, schema=table.partition(".")[0]))
    except Fault as fault:
        return [("server", False, str(fault), "see that it runs, and that the URL names it and its password")]
    version, user, database, recovers, encoding, fsync, form, missing = found
    findings: list[Finding] = [
        ("server", True, f"PostgreSQL {version}, user {user}, database {database}", ""),
        (
            "primary",
            recovers == "false",
            "it reads and writes" if recovers == "false" else "it is a standby, which only reads",
            "name the primary, or all servers with ?target_session_attrs=read-write",
        ),
        ("encoding", encoding == "UTF8", encoding, "keep the table in a database whose encoding is UTF8"),
        (
            "durability",
            fsync == "on" or not durable,
            f"the server's fsync is {fsync}, a commit {'waits' if durable else 'does not wait'} for the disk",
            "set fsync = on in the server, or RESILIENCE_POSTGRES__DURABILITY=none",
        ),
        (
            "table",
            form == FORM,
            f"{table}: {form or 'there is none that this user sees'}",
            "run `resilience storage init` as a user who may make tables",
        ),
        (
            "rights",
            not missing,
            f"missing: {missing}" if missing else "all that is needed",
            f"GRANT {missing} TO {user}",
        ),
        _push(listener),
    ]
    if form == FORM and not missing:
        records, damaged = _ask(pool, _COUNT.format(table=table))
        findings += [
            ("records", True, records, ""),
            (
                "damaged records",
                damaged == "0",
                f"{damaged} set aside for inspection",
                f"look at those of {table} whose set_aside is not null, then delete them",
            ),
        ]
    return findings


def _push(listener: Listener | None) -> Finding:
    if listener is None:
        return ("listener", True, "off: a record is trusted for RESILIENCE_MAX_STALENESS", "")
    return (
        "listener",
        not listener.why,
        f"off: {listener.why}" if listener.why else "others' commits are heard of at once",
        "name the server itself, not a transaction pooler, or set RESILIENCE_POSTGRES__PUSH=false",
    )


def _ask(pool: Pool, text: str) -> list[str]:
    result = in_thread(conversation(pool, Statement(text), [], again=True), clock.monotonic() + _PATIENCE)
    return [(result.get_value(0, column) or b"").decode() for column in range(result.nfields)]
