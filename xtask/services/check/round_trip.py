"""A real round trip on ClickHouse, S3 or a registry, with clients that nobody here wrote.

    python round_trip.py clickhouse|s3|registry

Reads the addresses that tests read, leaves nothing behind, prints what it did in one line. Any error ends it with code 1.
"""

import base64
import hashlib
import io
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
import uuid

ROWS = 10_000


def clickhouse():
    import pyarrow as pa

    address = urllib.parse.urlsplit(os.environ["SLUICE_TEST_CLICKHOUSE_URL"])
    url = urllib.parse.urlunsplit((address.scheme, address.netloc.rpartition("@")[2], address.path or "/", address.query, ""))
    headers = {}
    if address.username:
        user = f"{urllib.parse.unquote(address.username)}:{urllib.parse.unquote(address.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(user.encode()).decode()

    def values(column):
        return (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()

    def ask(query, data=b"", **settings):
        parameters = urllib.parse.urlencode({"query": query, **settings})
        request = urllib.request.Request(f"{url}{'&' if address.query else '?'}{parameters}", data, headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    table = f"sluice_check_{uuid.uuid4().hex}"
    sent = pa.table(
        {
            "id": pa.array(range(ROWS), pa.uint64()),
            "time": pa.array([1_700_000_000_123_456_789 + i for i in range(ROWS)], pa.timestamp("ns", "UTC")),
            "name": pa.array([None if i % 7 == 0 else f"row {i}" for i in range(ROWS)], pa.string()),
            "attrs": pa.array([[("k", str(i)), ("ü", "x")] for i in range(ROWS)], pa.map_(pa.string(), pa.string())),
        }
    )
    buffer = io.BytesIO()
    with pa.ipc.new_stream(buffer, sent.schema) as writer:
        writer.write_table(sent, max_chunksize=1000)
    ask(
        f"CREATE TABLE {table} (id UInt64, time DateTime64(9, 'UTC'), name Nullable(String), attrs Map(String, String)) "
        "ENGINE = MergeTree ORDER BY id"
    )
    try:
        ask(f"INSERT INTO {table} FORMAT ArrowStream", buffer.getvalue(), async_insert=0)
        answer = ask(
            f"SELECT * FROM {table} ORDER BY id FORMAT ArrowStream",
            output_format_arrow_string_as_string=1,
            output_format_arrow_compression_method="none",
        )
        got = pa.ipc.open_stream(answer).read_all()
        for column in sent.column_names:
            # Python's own times end at microseconds: these are compared as numbers.
            if values(got[column]) != values(sent[column]):
                raise SystemExit(f"the column {column} came back changed")
        parts = ask(f"SELECT count() FROM system.parts WHERE database = currentDatabase() AND table = '{table}'")
        if parts.strip() != b"1":
            raise SystemExit(f"one insert made {parts.decode().strip()} parts")
        try:
            ask("SELECT no_such_column")
            raise SystemExit("a wrong statement was not refused")
        except urllib.error.HTTPError as refused:
            if refused.headers["X-ClickHouse-Exception-Code"] != "47":
                raise SystemExit(f"a wrong statement was refused with {refused.headers.items()}")
    finally:
        ask(f"DROP TABLE {table}")
    version = ask("SELECT version()").decode().strip()
    return f"{ROWS} rows inserted and read back as ArrowStream, one part, a wrong statement refused; version {version}"


def s3():
    import boto3
    import botocore.config
    import botocore.exceptions

    keys = {}
    if "SLUICE_TEST_S3_ACCESS_KEY" in os.environ:
        keys["aws_access_key_id"] = os.environ["SLUICE_TEST_S3_ACCESS_KEY"]
        keys["aws_secret_access_key"] = os.environ["SLUICE_TEST_S3_SECRET_KEY"]
    client = boto3.client(
        "s3",
        endpoint_url=os.environ["SLUICE_TEST_S3_ENDPOINT"],
        region_name=os.environ.get("SLUICE_TEST_S3_REGION", "us-east-1"),
        config=botocore.config.Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
        **keys,
    )
    bucket = os.environ.get("SLUICE_TEST_S3_BUCKET")
    own = bucket is None
    if own:
        bucket = f"sluice-check-{uuid.uuid4().hex[:12]}"
        client.create_bucket(Bucket=bucket)
    key = f"check/{uuid.uuid4().hex}"
    try:
        try:
            client.put_object(Bucket=bucket, Key=key, Body=b"first", IfNoneMatch="*")
            try:
                client.put_object(Bucket=bucket, Key=key, Body=b"second", IfNoneMatch="*")
                raise SystemExit("a second put with If-None-Match: * was not refused")
            except botocore.exceptions.ClientError as refused:
                status = refused.response["ResponseMetadata"]["HTTPStatusCode"]
                if status not in (409, 412):
                    raise
            body = client.get_object(Bucket=bucket, Key=key)["Body"].read()
            if body != b"first":
                raise SystemExit(f"the object holds {body!r}")
            listed = client.list_objects_v2(Bucket=bucket, Prefix=key)["KeyCount"]
            if listed != 1:
                raise SystemExit(f"the object is listed {listed} times")
        finally:
            client.delete_object(Bucket=bucket, Key=key)
    finally:
        if own:
            client.delete_bucket(Bucket=bucket)
    return f"put if absent, the second put refused with {status}, got and listed the first"


def registry():
    base = f"http://{os.environ['SLUICE_TEST_REGISTRY']}/v2/sluice-check/{uuid.uuid4().hex}"
    user = os.environ.get("SLUICE_TEST_REGISTRY_USER")
    login = {}
    if user:
        password = os.environ["SLUICE_TEST_REGISTRY_PASSWORD"]
        login = {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}

    def ask(method, url, data=None, headers=login, **more):
        request = urllib.request.Request(url, data, {**headers, **more}, method=method)
        return urllib.request.urlopen(request, timeout=60)

    def put(content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        with ask("POST", f"{base}/blobs/uploads/", b"") as begun:
            place = urllib.parse.urljoin(base, begun.headers["Location"])
        place += ("&" if "?" in place else "?") + urllib.parse.urlencode({"digest": digest})
        ask("PUT", place, content, **{"Content-Type": "application/octet-stream"}).close()
        return {"mediaType": "application/octet-stream", "digest": digest, "size": len(content)}

    if user:
        try:
            ask("GET", f"{base}/tags/list", headers={}).close()
            raise SystemExit("nobody in particular may read")
        except urllib.error.HTTPError as refused:
            if refused.code != 401:
                raise
    kind = "application/vnd.oci.image.manifest.v1+json"
    config, layer = put(b"{}"), put(b"layer" * 1000)
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]}).encode()
    ask("PUT", f"{base}/manifests/1.0.0", manifest, **{"Content-Type": kind}).close()
    with ask("GET", f"{base}/manifests/1.0.0", Accept=kind) as answer:
        if answer.read() != manifest:
            raise SystemExit("the manifest is another one")
    with ask("GET", f"{base}/blobs/{layer['digest']}", Range="bytes=4990-") as answer:
        if answer.status != 206 or answer.read() != b"layerlayer":
            raise SystemExit("a range of a layer is not what was asked for")
    return "two blobs and a manifest pushed and pulled, one from its middle on, a stranger refused"


if __name__ == "__main__":
    try:
        print({"clickhouse": clickhouse, "s3": s3, "registry": registry}[sys.argv[1]]())
    except urllib.error.HTTPError as error:
        raise SystemExit(f"HTTP {error.code}: {error.read().decode(errors='replace').strip()}")
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {error}")
