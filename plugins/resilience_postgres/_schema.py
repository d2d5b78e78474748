"""What stands in the database: the table, the function and the procedure, and the statements that use them.

The record itself is `record`: the payload, byte for byte, whatever a policy or an encrypting storage hands in.
`payload` is the same as `jsonb`, for operators; the server makes it of `record`, so that the two cannot differ, and
leaves it empty where the record is no JSON.

A commit is one CALL.  It is a procedure and not a statement of SQL for three reasons.

- A conflict brings the current record along: in a procedure each statement sees what was committed before *it* began,
  while all parts of one statement see what was there before the row was waited for, which is what has just lost.
- What waits for the disk is not the commit itself but an empty one right after it, which is flushed with all that
  stands before it in the log.  So the row is free for the next before the disk has answered, and one flush serves
  many commits of one key: 20 times as many a second.  Whoever reads meanwhile sees a record that is not on disk yet;
  if the power fails then, its commit was not acknowledged, and is gone as if it had never been.
- NOTIFY locks the whole cluster from before its commit until after: with the disk's answer in between, all breakers
  of all applications would queue for one disk.

A record that has been committed more than `FEW` times, with never a pause of `CALM` in between, *moves*: of its commits
one in `UNTOLD` is told (see `resilience.freshness`), as to tell one takes more of the server than to make it.
`told_at` is when that was, and `calm` the number of the last commit that came after such a pause.  Whoever loads such a
record after one lets it rest: the next commit is told again.  The row's lock orders the two, so nobody who has loaded
it at rest misses one, however long a commit takes.
"""

from __future__ import annotations

from zlib import crc32

from resilience.freshness import CALM, FEW
from resilience.storage import UNTOLD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

FORM: Final = "resilience 1"
"""What the comment on the table says, of the form that this code knows."""

BYTEA, BOOL, INT8, TEXT, FLOAT8 = 17, 16, 20, 25, 701
"""The server's numbers for the types of parameters."""

_DDL = """\
-- The table of a resilience storage.  Needs CREATE on the database, or on the schema if it is there; no superuser.
-- To be run as one transaction (psql -1): nothing is made where something else has the table's name.
DO $$
DECLARE
    form text := obj_description(to_regclass('{table}'), 'pg_class');
BEGIN
    IF to_regnamespace('{schema}') IS NULL THEN
        CREATE SCHEMA {schema};
    ELSIF form LIKE 'resilience %' AND form <> '{form}' THEN
        RAISE feature_not_supported USING MESSAGE = '{table} is of the form "' || form || '", not "{form}"';
    ELSIF to_regclass('{table}') IS NOT NULL AND form IS DISTINCT FROM '{form}' THEN
        RAISE duplicate_table USING MESSAGE = '{table} is no table of resilience, and belongs to ' || (
            SELECT relowner::regrole FROM pg_class WHERE oid = to_regclass('{table}')
        );
    END IF;
END $$;

CREATE OR REPLACE FUNCTION {table}_json(record bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    RETURN pg_catalog.convert_from(record, 'UTF8')::jsonb;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;  -- encrypted, or something that jsonb cannot hold
END $$;

DO $$ BEGIN
    IF to_regclass('{table}') IS NULL THEN
        CREATE TABLE {table} (
            id          bytea PRIMARY KEY,                  -- SHA-256 of kind, line feed, name
            kind        text COLLATE "C" NOT NULL,
            name        text COLLATE "C" NOT NULL,
            incarnation text NOT NULL,                      -- drawn at the first commit
            number      bigint NOT NULL,                    -- of the commit, from 1
            record      bytea NOT NULL,
            checksum    bigint NOT NULL,
            payload     jsonb GENERATED ALWAYS AS ({table}_json(record)) STORED,
            expires_at  timestamptz,                        -- after it the record means nothing, and is swept
            changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
            told_at     timestamptz,                        -- when others were told of a commit, the last time
            calm        bigint,                             -- number of the last commit that came after a pause
            set_aside   text                                -- of a damaged record: what was wrong with it
        ) WITH (fillfactor = 50);                           -- room for a row's next version beside it
        COMMENT ON TABLE {table} IS '{form}';  -- on none but ours
    END IF;
END $$;

CREATE OR REPLACE PROCEDURE {table}_save(
    p_id bytea, p_kind text, p_name text, p_incarnation text, p_number bigint, p_record bytea, p_checksum bigint,
    p_expires_at double precision, p_patience text, p_durable boolean,
    OUT saved boolean, OUT now double precision,
    OUT record bytea, OUT incarnation text, OUT number bigint, OUT checksum bigint, OUT moves boolean
)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    settings text;
    asked timestamptz := clock_timestamp();
    tells boolean := true;
BEGIN
    -- Assigned, not performed: an expression costs less than a query.
    settings := set_config('lock_timeout', p_patience, true) || set_config('synchronous_commit', 'off', true);
    IF p_number = 1 THEN
        INSERT INTO {table} (id, kind, name, incarnation, number, record, checksum, expires_at)
        VALUES (p_id, p_kind, p_name, p_incarnation, 1, p_record, p_checksum, to_timestamp(p_expires_at))
        ON CONFLICT DO NOTHING;
        saved := FOUND;
        IF saved AND left(p_incarnation, 1) = '0' THEN  -- one birth in sixteen sweeps
            DELETE FROM {table} WHERE id = ANY (ARRAY (
                SELECT t.id FROM {table} t WHERE t.expires_at < clock_timestamp() LIMIT 1000 FOR UPDATE SKIP LOCKED
            ));
        END IF;
    ELSE
        UPDATE {table}
        SET number = p_number, record = p_record, checksum = p_checksum,
            expires_at = to_timestamp(p_expires_at), changed_at = asked,
            told_at = CASE
                WHEN p_number - 1 - calm >= {few} AND told_at BETWEEN asked - interval '{untold}' AND asked THEN told_at
                ELSE asked
            END,
            calm = CASE WHEN told_at BETWEEN asked - interval '{pause}' AND asked THEN calm ELSE p_number END
        WHERE id = p_id AND number = p_number - 1 AND incarnation = p_incarnation
        RETURNING told_at = asked, p_number - calm >= {few} INTO tells, moves;
        saved := FOUND;
    END IF;
    IF NOT saved THEN
        SELECT t.record, t.incarnation, t.number, t.checksum, t.number - t.calm >= {few}
        INTO record, incarnation, number, checksum, moves
        FROM {table} t WHERE t.id = p_id;
        now := date_part('epoch', clock_timestamp());
        RETURN;
    END IF;
    IF tells THEN
        PERFORM pg_notify('{table}', encode(p_id, 'hex') || ' ' || p_number || ' ' || p_incarnation);
    END IF;
    now := date_part('epoch', clock_timestamp());
    IF p_durable THEN
        COMMIT;
        IF current_setting('synchronous_commit') = 'off' THEN
            PERFORM set_config('synchronous_commit', 'on', true);
        END IF;
        PERFORM pg_logical_emit_message(true, 'resilience', '');  -- something to be flushed, with all before it
    END IF;
END $$;
"""

_LOAD = """\
SELECT date_part('epoch', clock_timestamp()), t.record, t.incarnation, t.number, t.checksum,
    t.number - t.calm >= {few} AS moves,
    t.number - t.calm >= {few} AND t.told_at NOT BETWEEN clock_timestamp() - interval '{pause}' AND clock_timestamp()
FROM (VALUES (1)) AS one LEFT JOIN {table} t ON t.id = $1"""

_LET_REST = """\
UPDATE {table} SET calm = number WHERE id = (
    SELECT t.id FROM {table} t
    WHERE t.id = $1 AND t.told_at NOT BETWEEN clock_timestamp() - interval '{pause}' AND clock_timestamp()
    FOR UPDATE SKIP LOCKED
)
RETURNING date_part('epoch', clock_timestamp()), record, incarnation, number, checksum, false,
    set_config('synchronous_commit', 'off', true)"""

_SAVE = "CALL {table}_save($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"

_DELETE = """\
WITH gone AS (
    DELETE FROM {table} WHERE id = $1 AND ($2::text IS NULL OR (incarnation = $2 AND number = $3)) RETURNING id
)
SELECT pg_notify('{table}', encode(id, 'hex')) FROM gone"""

_DISCARD = """\
WITH moved AS (
    UPDATE {table} SET id = $2, set_aside = $3, expires_at = NULL, changed_at = clock_timestamp()
    WHERE id = $1 AND ($4::text IS NULL OR (incarnation = $4 AND number = $5 AND checksum = $6))
    RETURNING kind, name
), dropped AS (
    DELETE FROM {table} WHERE id IN (
        SELECT t.id FROM {table} t, moved WHERE t.set_aside IS NOT NULL AND t.kind = moved.kind AND t.name = moved.name
        ORDER BY t.changed_at DESC OFFSET greatest($7 - 1, 0)
    )
)
SELECT pg_notify('{table}', encode($1, 'hex')) FROM moved"""

_KEYS = "SELECT kind, name FROM {table} WHERE set_aside IS NULL"


class Statement:
    """A statement with its parameters' types; `name` is one under which a server may keep it.

    The name tells its text, so that behind a pooler nobody runs what somebody else has prepared under the same one.
    """

    __slots__ = ("formats", "name", "text", "types")

    def __init__(self, text: str, *types: int) -> None:
        self.text = text.encode()
        self.types = list(types)
        self.formats = [1] * len(types)  # lists, as psycopg 3.2 takes nothing else
        self.name = b"resilience_%08x" % crc32(self.text)


class Schema:
    """The statements for one table.

    :param table: schema and table with a dot between, fit to stand in SQL as they are.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        self.listen = f'LISTEN "{table}"'.encode()
        untold, pause = f"{UNTOLD * 1e3:g} ms", f"{CALM * 1e3:g} ms"
        self.ddl = _DDL.format(
            table=table, schema=table.partition(".")[0], form=FORM, few=FEW, untold=untold, pause=pause
        )
        self.load = Statement(_LOAD.format(table=table, few=FEW, pause=pause), BYTEA)
        self.let_rest = Statement(_LET_REST.format(table=table, pause=pause), BYTEA)
        self.save = Statement(_SAVE.format(table=table), BYTEA, TEXT, TEXT, TEXT, INT8, BYTEA, INT8, FLOAT8, TEXT, BOOL)
        self.delete = Statement(_DELETE.format(table=table), BYTEA, TEXT, INT8)
        self.discard = Statement(_DISCARD.format(table=table), BYTEA, BYTEA, TEXT, TEXT, INT8, INT8, INT8)
        self.keys = Statement(_KEYS.format(table=table))
        self.prove = Statement(f"SELECT pg_notify('{table}', $1)", TEXT)
