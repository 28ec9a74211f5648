"""Counts and sums of the cold table, as readers that know nothing of Sluice find them.

    python readers.py READER LOCATION

READER is `duckdb` or `pandas`. LOCATION is a folder, or s3://bucket/prefix, which the variables AWS_… reach. Prints one line of comma-separated
values for each signal, in the order of their names.
"""

import os
import sys

EVENTS = "signal <> '_batch' AND quarantined_by IS NULL"


def duckdb(location):
    import duckdb
    from importlib import import_module, metadata
    from pathlib import Path

    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    for name in ("httpfs", "delta"):
        # From the package registry of Python, which has them signed.
        module = Path(import_module(f"duckdb_extension_{name}").__file__).parent
        connection.load_extension(str(next(module.glob(f"extensions/*/{name}.duckdb_extension"))))
    assert metadata.version("duckdb") == metadata.version("duckdb-extension-delta")
    if location.startswith("s3://"):
        endpoint = os.environ["AWS_ENDPOINT_URL"].removeprefix("http://")
        connection.execute(
            f"CREATE SECRET (TYPE s3, KEY_ID '{os.environ['AWS_ACCESS_KEY_ID']}', SECRET '{os.environ['AWS_SECRET_ACCESS_KEY']}', "
            f"REGION '{os.environ['AWS_REGION']}', ENDPOINT '{endpoint}', URL_STYLE 'path', USE_SSL false)"
        )
    return connection.execute(
        f"""SELECT signal, count(*), count(trace_id), count(DISTINCT attrs['evt.id']), sum("offset"), sum("row"), sum(severity),
                   sum(duration_ns), epoch_us(min(time)), epoch_us(max(time))
            FROM delta_scan('{location}') WHERE {EVENTS} GROUP BY signal ORDER BY signal"""
    ).fetchall()


def pandas(location):
    from deltalake import DeltaTable

    columns = ["signal", "quarantined_by", "trace_id", "attrs", "offset", "row", "severity", "duration_ns", "time"]
    frame = DeltaTable(location).to_pandas(columns=columns)
    frame = frame[(frame["signal"] != "_batch") & frame["quarantined_by"].isna()]
    for signal, rows in sorted(frame.groupby("signal")):
        times = rows["time"].astype("datetime64[us, UTC]").astype("int64")
        yield (
            signal,
            len(rows),
            rows["trace_id"].count(),
            rows["attrs"].map(lambda pairs: dict(pairs)["evt.id"]).nunique(),
            rows["offset"].sum(),
            rows["row"].sum(),
            none_if_empty(rows["severity"]),
            none_if_empty(rows["duration_ns"]),
            times.min(),
            times.max(),
        )


def none_if_empty(column):
    present = column.dropna()
    return None if present.empty else sum(int(value) for value in present)


if __name__ == "__main__":
    for row in {"duckdb": duckdb, "pandas": pandas}[sys.argv[1]](sys.argv[2]):
        print(",".join("" if value is None else str(value) for value in row))
