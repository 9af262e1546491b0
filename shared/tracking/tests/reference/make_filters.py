"""Asks the published `mlflow` package (3.18.0) which filters it takes, and writes filters.json.

    python -m venv /tmp/mlflow && /tmp/mlflow/bin/pip install mlflow==3.18.0
    /tmp/mlflow/bin/python make_filters.py > filters.json

A filter is accepted when the stock SQLite store carries the search out; `parsed` is what MLflow's own
parser made of it. A refusal that is MLflow's (a 4xx) is `refused`, any other exception `broken`: stock
answers 500 there, and Pomona must answer 400.
"""

import itertools
import json
import logging
import sys
import tempfile

logging.disable(logging.CRITICAL)

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
from mlflow.utils import search_logged_model_utils, search_utils

OPS = ["=", "!=", ">", ">=", "<", "<=", "LIKE", "ilike", "==", "<>", "RLIKE", "NOT LIKE"]
VALUES = ["'x'", '"x"', "`x`", "x", "1", "-1.5", "1e-3", "1.", ".5", "0x10", "nan", "'1'", "''"]
NULLS = ["IS NULL", "is not null", "IS 'x'", "NOT NULL"]
LISTS = [
    "IN ('a', 'b')", "in ('a')", "NOT IN ('a','b')", "not in (\"a\")", "IN ()", "IN (1, 2)",
    "IN ('a', 1)", "IN 'a'", "= ('a')", "IN ('a',)", "IN (a)",
]

KEYS = {
    "runs": [
        "metrics.acc", "metric.acc", "params.lr", "param.lr", "parameters.lr", "tags.t", "tag.t",
        "attributes.run_id", "attribute.status", "attr.run_name", "run.user_id", "run_id", "status",
        "artifact_uri", "start_time", "attributes.end_time", "created", "attributes.Created",
        "attributes.`run name`", 'attributes."Run Name"', "dataset.name", "datasets.digest",
        "dataset.context", "dataset.other", "attributes.nope", "nope", "Metrics.acc", "foo.bar",
        "metrics.`a b`", 'metrics."a/b"', "metrics.a.b.c", "tags.mlflow.source.name",
        "tags.`mlflow.note`.content", "metrics.a-b", "metrics.a/b", "metrics.a:b", "metrics.a b",
        "`metrics`.acc", "tags.ключ", "params.order", "params.`1`", "tags.a_b", "metrics.",
        "experiment_id", "lifecycle_stage", "run_uuid", "attributes.status",
    ],
    "experiments": [
        "name", "attribute.name", "attributes.creation_time", "attr.name", "experiment_id",
        "creation_time", "last_update_time", "tags.t", "tag.`a b`", "tags.\"a b\"", "metrics.m",
        "params.p", "lifecycle_stage", "attributes.`name`",
    ],
    "registered_models": [
        "name", "attribute.name", "attributes.name", "tags.t", "tag.`a b`", "run_id",
        "creation_timestamp", "metrics.m", "tags.`mlflow.prompt.is_prompt`",
    ],
    "model_versions": [
        "name", "attribute.name", "version_number", "run_id", "source_path", "version", "tags.t",
        "tag.`a b`", "creation_timestamp", "params.p", "attribute.source_path",
    ],
    "logged_models": [
        "name", "model_id", "model_type", "status", "source_run_id", "creation_timestamp",
        "creation_time", "creation_timestamp_ms", "last_updated_timestamp", "attributes.name",
        "attributes.creation_timestamp_ms", "metrics.acc", "params.lr", "tags.t", "tags.`a b`",
        "tag.t", "metric.acc", "nope", "experiment_id", "attributes.status",
    ],
}

WHOLE = {
    "runs": [
        "", "   ", "metrics.a > 1 AND params.b = 'x'", "metrics.a>1 and metrics.b<=2",
        "metrics.a > 1 OR metrics.b > 1", "(metrics.a > 1)", "metrics.a > 1 AND (metrics.b > 1)",
        "metrics.a > 1 AND", "AND metrics.a > 1", "metrics.a > 1 AND AND metrics.b > 1",
        "metrics.a > 1;", "metrics.a > 1; metrics.b > 1", "metrics.a", "1 > metrics.a", "1 = 1",
        "metrics.a > metrics.b", "metrics.a > 1 metrics.b > 1", "NOT metrics.a > 1",
        "params.a = 'it''s'", "params.a = 'it\\'s'", "params.a = 'C:\\'", "params.a = 'x",
        "params.a = \"it's\"", "params.a = 'say \"x\"'", "params.a = 'a AND b'",
        "params.a = 'x' AND params.b = 'y' AND run_id IN ('a') AND tags.c IS NULL",
        "tags.a IS NULL AND tags.b IS NOT NULL", "params.a = 'ünï'", "params.a ='x'", "params.a= 'x'",
        "params.a\n=\n'x'", "params.a = 'x'AND params.b = 'y'", "params.a = 'x' AND\nparams.b = 'y'",
        "metrics.`a``b` > 1", "metrics.a > 1 AND run_id IN ('a','b') AND status = 'RUNNING'",
        "run_id NOT IN ('a') and metrics.a > 1", "metrics.a >= -3", "metrics.a = 1e5",
        "metrics.a = 1E-5", "metrics.a = 12345678901234567890", "start_time > 1.5",
        "metrics.a BETWEEN 1 AND 2", "params.a = 'x' -- c", "params.a = 'x' /* c */", "status = RUNNING",
        "metrics.a = '1'", "metrics.a >", "> 1", "=", "'x'", "metrics.a = = 1", "params.a LIKE '%x_'",
        "dataset.name = 'd' AND dataset.context IN ('train', 'eval')", "attributes.run_id = \"x\"",
    ],
    "experiments": ["name = 'a' AND tags.b = 'c'", "name ILIKE '%a%' and creation_time > 5", "name = 'a' OR name = 'b'"],
    "registered_models": ["name = 'a' and tags.b ILIKE 'c'", "name LIKE 'a%' AND name != 'b'"],
    "model_versions": ["name = 'a' and run_id IN ('x', 'y')", "name='a' AND version_number > 3"],
    "logged_models": [
        "name = 'a' AND metrics.acc > 0.5 AND params.lr = 0.01", "status = 'READY'", "status = 'x'",
        "status IN ('READY', 'FAILED')", "name = 'a' OR name = 'b'", "metrics.acc > '1'",
    ],
}


def plain(comparison):
    """A comparison as [type, key, operator, value]."""
    if isinstance(comparison, dict):
        kind, key, value = comparison["type"], comparison["key"], comparison["value"]
        comparator = comparison["comparator"]
        if kind == "metric":
            value = float(value)
        key = search_utils.SearchUtils.translate_key_alias(key)
    else:
        kind = comparison.entity.type.value.rstrip("s")
        kind = "parameter" if kind == "param" else kind
        key, value, comparator = comparison.entity.key, comparison.value, comparison.op
    if value != value:
        value = "NaN"
    return [kind, key, comparator.upper(), list(value) if isinstance(value, tuple) else value]


def main():
    folder = tempfile.mkdtemp()
    tracking = Tracking(f"sqlite:///{folder}/tracking.db", folder)
    registry = Registry(f"sqlite:///{folder}/tracking.db")
    search = {
        "runs": lambda f: tracking.search_runs(["0"], f, 1, 5),
        "experiments": lambda f: tracking.search_experiments(filter_string=f),
        "registered_models": lambda f: registry.search_registered_models(filter_string=f),
        "model_versions": lambda f: registry.search_model_versions(filter_string=f),
        "logged_models": lambda f: tracking.search_logged_models(["0"], filter_string=f),
    }
    parse = {
        "runs": search_utils.SearchUtils.parse_search_filter,
        "experiments": search_utils.SearchExperimentsUtils.parse_search_filter,
        "registered_models": search_utils.SearchModelUtils.parse_search_filter,
        "model_versions": search_utils.SearchModelVersionUtils.parse_search_filter,
        "logged_models": search_logged_model_utils.parse_filter_string,
    }
    table = {}
    for kind, keys in KEYS.items():
        filters = WHOLE[kind] + [
            f"{key} {rest}"
            for key in keys
            for rest in itertools.chain(
                (f"{op} {value}" for op in OPS for value in ("'x'", "1")),
                (f"= {value}" for value in VALUES),
                NULLS,
                LISTS,
            )
        ]
        found = table[kind] = {"accepted": {}, "refused": {}, "broken": {}}
        for text in dict.fromkeys(filters):
            try:
                search[kind](text)
                found["accepted"][text] = [plain(c) for c in parse[kind](text)]
            except MlflowException as e:
                refused = e.error_code == "INVALID_PARAMETER_VALUE"
                found["refused" if refused else "broken"][text] = e.message if text in WHOLE[kind] else ""
            except Exception:
                found["broken"][text] = ""
    lines = []
    for kind, found in table.items():
        parts = []
        for outcome, cases in found.items():
            rows = ",\n".join(f"{json.dumps(k, ensure_ascii=False)}: {json.dumps(v, ensure_ascii=False)}" for k, v in cases.items())
            parts.append(f'"{outcome}": {{\n{rows}\n}}')
        lines.append(f'"{kind}": {{' + ",\n".join(parts) + "}")
    print("{" + ",\n".join(lines) + "}")
    print({k: {o: len(c) for o, c in f.items()} for k, f in table.items()}, file=sys.stderr)

main()
