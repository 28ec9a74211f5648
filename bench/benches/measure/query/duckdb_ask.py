"""Answers questions on stdin, one a line, with the milliseconds that each took: DuckDB over the data files of a table.

The columns are those of the table as it is asked elsewhere: rows that are not events are hidden.
"""

import sys
import time

import deltalake
import duckdb

files = deltalake.DeltaTable(sys.argv[1]).file_uris()
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
# It draws its progress on stdout, which is for answers.
connection.execute("SET enable_progress_bar = false")
listed = ", ".join(f"'{file}'" for file in files)
connection.execute(
    f"CREATE VIEW events AS SELECT * FROM read_parquet([{listed}]) WHERE signal <> '_batch' AND quarantined_by IS NULL"
)
print("ready", flush=True)
for line in sys.stdin:
    begun = time.perf_counter()
    try:
        connection.execute(line).to_arrow_table()
        print((time.perf_counter() - begun) * 1e3, flush=True)
    except Exception as error:
        print(str(error).replace("\n", " "), flush=True)
