"""Asks the published `mlflow` package (3.18.0) about names, paths, tokens and orders; writes names.json.

    /tmp/mlflow/bin/python make_names.py > names.json        (the environment of make_filters.py)

For each question and input: null when MLflow takes it, else the message of its refusal.
"""

import json
import logging
import sys
import tempfile

logging.disable(logging.CRITICAL)

from mlflow.exceptions import MlflowException
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
from mlflow.utils import uri, validation
from mlflow.utils.search_utils import SearchUtils

NAMES = [
    "a", "acc/top 1", "val:loss", "a.b-c_d", "ключ", "花", "a..b", "..a", "a..", "", " ", ".", "..", "../a",
    "/a", "//a", "///a", "a/", "a//b", "./a", "a/.", "a/../b", "a/./b", "a\"b", "a(b)", "a,b", "a\nb", "a\tb",
    "é+", "a'b", "a\\b", "a%b", "-a", "_a", "0", "latest", "LATEST", "v1", "V12", "v", "v1a", "a b", "a:b",
    "1.0", "-1", "007", " 7 ", "m-0123456789abcdef", "n" * 64, "n" * 65, "n" * 250, "n" * 251, "n" * 255,
    "n" * 256, "n" * 257, "ü" * 250, "ü" * 251,
]
PATHS = [
    "a", "a/b", "a b", "ünï/花.png", "100%.txt", "a..b", "..a", "", ".", "..", "../x", "a/../b", "a/..", "./a", "/a",
    "//a", "a//b", "a/", "%2e%2e/x", "%2E%2E%2Fx", "%252e%252e%252fx", "a/%2e%2e/b", "%2fetc", "a\\b", "%5ca",
    "C:\\x", "C:/x", "file:///etc/passwd", "a#b", "a%23b", "a?b", "model:v1", "~/x",
]
ORDERS = {
    "runs": [
        "metrics.a", "metrics.a DESC", "metric.a asc", "params.`a b` DESC", "tags.\"a b\"", "start_time", "created DESC",
        "attributes.status", "run_id desc", "`run name`", "attributes.`run name`", "metrics.a ACS", "metrics.a b c", "",
        " ", "metrics.a, metrics.b", "metrics.a > 1", "nope", "foo.bar", "dataset.name", "metrics", "DESC", "metrics.a.b",
        "tags.mlflow.runName", "`metrics`.a", " metrics.a ", "metrics.a  DESC", "end_time DESC NULLS LAST",
    ],
    "experiments": ["name", "name DESC", "creation_time", "attribute.experiment_id asc", "last_update_time", "tags.a", "nope"],
    "registered_models": [
        "name", "name DESC", "timestamp", "timestamp desc", "last_updated_timestamp", "creation_timestamp", "attribute.name",
        "tags.a", "nope",
    ],
    "model_versions": [
        "name", "version_number DESC", "creation_timestamp", "last_updated_timestamp asc", "attribute.name", "run_id", "nope",
    ],
}


def asked(question, inputs):
    answers = {}
    for text in inputs:
        try:
            question(text)
            answers[text] = None
        except MlflowException as e:
            answers[text] = e.message
        except Exception as e:
            answers[text] = f"({type(e).__name__})"
    return answers


def new_alias(name):
    validation._validate_alias_name(name)
    validation._validate_alias_name_reserved(name)


def main():
    folder = tempfile.mkdtemp()
    tracking = Tracking(f"sqlite:///{folder}/tracking.db", folder)
    registry = Registry(f"sqlite:///{folder}/tracking.db")
    table = {
        "metric_key": asked(lambda n: validation._validate_metric(n, 1.0, 0, 0), NAMES),
        "param_key": asked(lambda n: validation._validate_param(n, "v"), NAMES),
        "tag_key": asked(lambda n: validation._validate_tag(n, "v"), NAMES),
        "experiment_tag": asked(lambda n: validation._validate_experiment_tag(n, "v"), NAMES),
        "registry_tag": asked(lambda n: validation._validate_registered_model_tag(n, "v"), NAMES),
        "run_id": asked(validation._validate_run_id, NAMES),
        "experiment_id": asked(validation._validate_experiment_id, NAMES),
        "experiment_name": asked(validation._validate_experiment_name, NAMES),
        "model_name": asked(validation._validate_model_name, NAMES),
        "model_version": asked(validation._validate_model_version, NAMES),
        "alias": asked(validation._validate_alias_name, NAMES),
        "new_alias": asked(new_alias, NAMES),
        "artifact_path": asked(uri.validate_path_is_safe, PATHS),
        "token": asked(SearchUtils.parse_start_offset_from_page_token, ["", "eyJvZmZzZXQiOiA1fQ==", "abc", "e30=", "bm9wZQ=="]),
        "order runs": asked(lambda o: tracking.search_runs(["0"], "", 1, 5, [o]), ORDERS["runs"]),
        "order experiments": asked(lambda o: tracking.search_experiments(order_by=[o]), ORDERS["experiments"]),
        "order registered_models": asked(lambda o: registry.search_registered_models(order_by=[o]), ORDERS["registered_models"]),
        "order model_versions": asked(lambda o: registry.search_model_versions(order_by=[o]), ORDERS["model_versions"]),
    }
    json.dump(table, sys.stdout, ensure_ascii=False, indent=1)
    print()


main()
