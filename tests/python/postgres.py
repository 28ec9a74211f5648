"""Asks the door for clients of Postgres as people do: psycopg, asyncpg, SQLAlchemy and pandas, unchanged. Prints what they saw, as JSON.

Usage: postgres.py PORT TOKEN
"""

import asyncio
import datetime
import json
import sys

import asyncpg
import pandas
import psycopg
import sqlalchemy

port, token = sys.argv[1], sys.argv[2]
seen = {}

with psycopg.connect(host="127.0.0.1", port=port, dbname="sluice", user="anyone", password=token) as connection:
    ask = "SELECT body, severity, \"time\", attrs['mark'] FROM logs WHERE attrs['mark'] = %s AND severity >= %s ORDER BY body"
    for binary in (False, True):
        cursor = connection.cursor(binary=binary)
        rows = cursor.execute(ask, ("pg", 9)).fetchall()
        seen["binary" if binary else "text"] = [[b, s, t.isoformat(), m] for b, s, t, m in rows]
    since = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    cursor = connection.execute('SELECT count(*) FROM logs WHERE "time" > %s', (since,))
    seen["since"] = cursor.fetchone()[0]
    # the same text often enough that it becomes a named statement
    for number in range(8):
        (echo,) = connection.execute("SELECT %s::bigint + 1", (number,)).fetchone()
        assert echo == number + 1, echo
    seen["map"] = connection.execute("SELECT attrs FROM logs WHERE attrs['mark'] = 'pg' LIMIT 1").fetchone()[0]
    connection.commit()
    try:
        connection.execute("SELECT nope FROM logs")
    except psycopg.errors.UndefinedColumn as error:
        seen["error"] = [error.sqlstate, error.diag.statement_position]
    try:
        connection.execute("SELECT 1")
    except psycopg.errors.InFailedSqlTransaction as error:
        seen["aborted"] = error.sqlstate
    connection.rollback()
    seen["after"] = connection.execute("SELECT 1").fetchone()[0]

engine = sqlalchemy.create_engine(f"postgresql+psycopg://anyone:{token}@127.0.0.1:{port}/sluice")
tables = sqlalchemy.inspect(engine)
seen["tables"] = sorted(tables.get_table_names())
columns = tables.get_columns("logs")[:4]
seen["columns"] = [f"{column['name']} {column['type']}" for column in columns]
seen["keys"] = [tables.get_pk_constraint("logs")["constrained_columns"], tables.get_foreign_keys("logs")]
seen["views"] = sorted(tables.get_view_names())
seen["indexes"] = [tables.get_indexes("events"), tables.get_multi_indexes() == {(None, "events"): []}]
seen["described"] = [tables.get_table_comment("events"), tables.get_table_options("events"), tables.get_unique_constraints("events"), tables.get_check_constraints("events")]
seen["nothing else"] = [tables.get_materialized_view_names(), tables.get_temp_table_names(), tables.get_sequence_names(), tables.get_enums()]
reflected = sqlalchemy.MetaData()
reflected.reflect(engine, views=True)
seen["reflected"] = [len(reflected.tables), str(reflected.tables["events"].columns["time"].type), len(reflected.tables["events"].indexes)]
seen["schemas"] = "public" in tables.get_schema_names()
seen["has"] = [tables.has_table("logs"), tables.has_table("nothing")]
with engine.connect() as connection:
    logs = sqlalchemy.Table("logs", sqlalchemy.MetaData(), sqlalchemy.Column("body"), sqlalchemy.Column("severity"))
    asked = sqlalchemy.select(logs.c.body).where(logs.c.severity == 13).order_by(logs.c.body).limit(2)
    frame = pandas.read_sql(sqlalchemy.text("SELECT body, severity FROM logs WHERE severity >= :least"), connection, params={"least": 9})
    seen["pandas"] = [list(frame.columns), len(frame)]
    seen["orm"] = [row.body for row in connection.execute(asked)]



async def by_asyncpg():
    """Binary throughout, with a cursor and a cancelled query."""
    connection = await asyncpg.connect(host="127.0.0.1", port=port, user="anyone", password=token, database="sluice", ssl=False)
    rows = await connection.fetch("SELECT body FROM logs WHERE attrs['mark'] = $1 AND severity >= $2 ORDER BY body", "pg", 9)
    seen["asyncpg"] = [row["body"] for row in rows]
    async with connection.transaction():
        seen["cursor"] = 0
        async for _ in connection.cursor("SELECT value FROM range(1000)", prefetch=100):
            seen["cursor"] += 1
    endless = connection.fetchval("SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3")
    try:
        await asyncio.wait_for(endless, 1)
    except asyncio.TimeoutError:
        seen["cancelled"] = [True, await connection.fetchval("SELECT 1")]
    row = await connection.fetchrow("SELECT stored_rows, missing_batches FROM completeness('2020-01-01', $1::text)", "2099-01-01")
    seen["completeness"] = list(row)
    await connection.close()


asyncio.run(by_asyncpg())

try:
    psycopg.connect(host="127.0.0.1", port=port, dbname="sluice", user="anyone", password="slq_" + "0" * 64)
except psycopg.OperationalError as error:
    seen["stranger"] = "the token is not known here" in str(error)

print(json.dumps(seen))
