"""Asks the door for clients of Flight SQL as people do: the ADBC driver from its registry, pandas over it, and pyarrow.flight. Prints
what they saw, as JSON.

Usage: flight.py PORT TOKEN
"""

import json
import sys
import warnings

import adbc_driver_flightsql.dbapi
import adbc_driver_manager
import pandas
import pyarrow
import pyarrow.flight
from adbc_driver_flightsql import ConnectionOptions, DatabaseOptions

port, token = sys.argv[1], sys.argv[2]
uri = f"grpc://127.0.0.1:{port}"
seen = {}
# it is a read-only server without transactions, and the driver says so
warnings.filterwarnings("ignore", message=".*autocommit.*")

bearer = {DatabaseOptions.AUTHORIZATION_HEADER.value: f"Bearer {token}"}
basic = {"username": "anyone", "password": token}
for name, options in (("bearer", bearer), ("basic", basic)):
    with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=options) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT body, severity, attrs['mark'] FROM logs WHERE attrs['mark'] = 'flight' ORDER BY body")
        seen[name] = [list(row) for row in cursor.fetchall()]

with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=bearer) as connection:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM logs WHERE attrs['mark'] = $1 AND severity >= $2", ("flight", 9))
        seen["bound"] = cursor.fetchone()[0]
        cursor.execute("SELECT count(*) FROM logs WHERE attrs['mark'] = $1", ("' OR '1' = '1",))
        seen["injected"] = cursor.fetchone()[0]
    with connection.cursor() as cursor:
        seen["schema"] = cursor.adbc_execute_schema("SELECT body, severity FROM logs").names
        cursor.adbc_prepare("SELECT $1::bigint + 1")
    frame = pandas.read_sql("SELECT body, \"time\", severity, attrs FROM logs WHERE attrs['mark'] = 'flight' ORDER BY body", connection)
    seen["pandas"] = [list(frame.columns), len(frame), str(frame["time"].iloc[0])[:4]]
    objects = connection.adbc_get_objects(depth="columns").read_all().to_pylist()
    tables = {
        table["table_name"]: [column["column_name"] for column in table["table_columns"]]
        for catalog in objects
        for schema in catalog["catalog_db_schemas"]
        for table in schema["db_schema_tables"]
    }
    seen["tables"] = sorted(tables)
    seen["columns"] = [name for name in ("time", "body", "attrs", "trace_id") if name in tables["logs"]]
    seen["table_schema"] = connection.adbc_get_table_schema("events").field("body").name
    seen["info"] = connection.adbc_get_info()["vendor_name"]
    seen["types"] = connection.adbc_get_table_types()
    for name, sql in (("unknown", "SELECT nope FROM logs"), ("write", "DELETE FROM events")):
        with connection.cursor() as cursor:
            try:
                cursor.execute(sql)
            except adbc_driver_manager.Error as error:
                seen[name] = str(error)
    with connection.cursor() as cursor:
        try:
            cursor.adbc_ingest("events", pyarrow.table({"body": ["x"]}), mode="append")
        except adbc_driver_manager.Error as error:
            seen["ingest"] = str(error)

slow = dict(bearer) | {DatabaseOptions.TIMEOUT_FETCH.value: "0.5", DatabaseOptions.TIMEOUT_QUERY.value: "20"}
with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=slow) as connection, connection.cursor() as cursor:
    try:
        cursor.execute("SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3")
        cursor.fetchall()
    except adbc_driver_manager.Error as error:
        seen["late"] = type(error).__name__ + ": " + str(error)

with adbc_driver_flightsql.dbapi.connect(uri, db_kwargs=bearer) as connection, connection.cursor() as cursor:
    import threading

    threading.Timer(1.0, cursor.adbc_cancel).start()
    try:
        cursor.execute("SELECT count(*) FROM range(100000000000) a WHERE a.value % 7 = 3")
        cursor.fetchall()
    except adbc_driver_manager.Error as error:
        seen["cancelled"] = str(error)


class Headers(pyarrow.flight.ClientMiddlewareFactory):
    """Keeps the headers of the answers."""

    def __init__(self):
        self.received = {}

    def start_call(self, info):
        factory = self

        class Middleware(pyarrow.flight.ClientMiddleware):
            def received_headers(self, headers):
                factory.received.update(headers)

        return Middleware()


def varint(number):
    """A number as protobuf writes it."""
    out = bytearray()
    while True:
        out.append(number & 0x7F | (0x80 if number > 0x7F else 0))
        number >>= 7
        if not number:
            return bytes(out)


def field(number, value):
    return bytes([number << 3 | 2]) + varint(len(value)) + value


def statement(sql):
    url = b"type.googleapis.com/arrow.flight.protocol.sql.CommandStatementQuery"
    return field(1, url) + field(2, field(1, sql.encode()))


headers = Headers()
client = pyarrow.flight.FlightClient(uri, middleware=[headers])
options = pyarrow.flight.FlightCallOptions(headers=[client.authenticate_basic_token("anyone", token)])
asked = pyarrow.flight.FlightDescriptor.for_command(statement("SELECT body FROM logs WHERE attrs['mark'] = 'flight' ORDER BY body"))
info = client.get_flight_info(asked, options)
reader = client.do_get(info.endpoints[0].ticket, options)
chunk = reader.read_chunk()
seen["pyarrow"] = chunk.data.column(0).to_pylist()
seen["beside"] = json.loads(chunk.app_metadata.to_pybytes())["complete"]
seen["header"] = json.loads(headers.received["sluice-completeness"][0])["complete"]
try:
    client.get_flight_info(asked)
except pyarrow.flight.FlightUnauthenticatedError as error:
    seen["stranger"] = "authorization" in str(error)
print(json.dumps(seen, default=str))
