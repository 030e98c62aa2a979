"""What schemathesis can't know of Sanso from the OpenAPI document alone.

Names in paths are those of the application under test in most cases, so that
requests come past the first check; SQL is SQL in most cases; a body of lines
is lines.
"""

import json

import schemathesis
from hypothesis import strategies as st

NAMES = {"view": ["load", "total"], "source": ["readings"]}
SQL = [
    "SELECT 1 AS one",
    "SELECT * FROM load ORDER BY window",
    "SELECT usage_point, SUM(kwh) FROM load GROUP BY usage_point",
    "SELECT * FROM readings_history LIMIT 3",
    "SELECT v FROM generate_series(1, 100000) AS t(v)",
    "SELECT * FROM load WHERE usage_point = '\u0000'",
    "SELECT 1 / 0",
    "SELECT CAST('x' AS INT)",
    "SELECT '\\",
]
READING = st.fixed_dictionaries(
    {
        "usage_point": st.text(max_size=8),
        "channel": st.sampled_from(["E1", "B1"]),
        "start_utc": st.sampled_from(["2026-02-01T00:00:00Z", "1969-12-31T23:59:59Z", "9999-12-31T23:59:59Z"]),
        "value": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
        "source_version": st.integers(),
    }
)


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    """Puts a name that exists where the generated one is of even length."""
    for name, value in list((path_parameters or {}).items()):
        if name in NAMES and len(str(value)) % 2 == 0:
            path_parameters[name] = NAMES[name][len(str(value)) // 2 % len(NAMES[name])]
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    """Puts SQL that means something where the generated text is of even length."""
    if isinstance(body, dict) and isinstance(body.get("sql"), str) and len(body["sql"]) % 2 == 0:
        body["sql"] = SQL[len(body["sql"]) // 2 % len(SQL)]
    return body


LINES = st.lists(st.one_of(READING.map(json.dumps), st.text(max_size=20)), max_size=5).map("\n".join)
schemathesis.openapi.media_type("application/x-ndjson", LINES.map(lambda text: text.encode("utf-8", "replace")))
