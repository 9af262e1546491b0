//! What a webhook is told, in the words of its flavour: ours is Standard Webhooks' `type`, `timestamp`
//! and `data`, MLflow's is `entity`, `action`, `timestamp` and `data` with the fields that its server
//! sends.
//!
//! The same event gives the same bytes at every attempt.

use bytes::Bytes;
use pomona_domain::Timestamp;
use pomona_domain::hook::Flavour;
use pomona_store::Secret;
use serde_json::{Map, Value, json};

use super::send::Message;
use super::sign;

/// What is sent of an event (its id, name and time), signed for this moment.
pub fn message(
    flavour: Flavour,
    secret: &Secret,
    (id, topic, at): (&str, &str, Timestamp),
    doc: &str,
    now: Timestamp,
) -> Message {
    let body = body(flavour, topic, at, doc);
    let seconds = now.0.div_euclid(1000);
    let headers = sign::headers(flavour, &secret.0, id, seconds, &body);
    Message { headers, body }
}

/// The body for an event; `doc` is the fact as JSON.
fn body(flavour: Flavour, topic: &str, at: Timestamp, doc: &str) -> Bytes {
    let data: Value = serde_json::from_str(doc).unwrap_or_default();
    let body = match flavour {
        Flavour::Pomona => json!({ "type": topic, "timestamp": at, "data": data }),
        Flavour::Mlflow => {
            let (entity, action) = topic.split_once('.').unwrap_or((topic, ""));
            // As Python's `isoformat` writes it.
            let timestamp = at.to_string().replace('Z', "+00:00");
            json!({
                "entity": entity,
                "action": action,
                "timestamp": timestamp,
                "data": of_mlflow(topic, &data),
            })
        }
    };
    Bytes::from(body.to_string())
}

/// The fields that MLflow's server sends, from a fact of ours.
fn of_mlflow(topic: &str, fact: &Value) -> Value {
    let fields: &[&str] = match topic {
        "registered_model.created" => &["name", "tags", "description"],
        "model_version.created" => &["name", "version", "source", "run_id", "tags", "description"],
        "model_version_tag.set" => &["name", "version", "key", "value"],
        "model_version_tag.deleted" => &["name", "version", "key"],
        "model_version_alias.created" => &["name", "alias", "version"],
        "model_version_alias.deleted" => &["name", "alias"],
        _ => return fact.clone(),
    };
    let data: Map<String, Value> = fields
        .iter()
        .map(|field| ((*field).to_owned(), field_of_mlflow(field, fact)))
        .collect();
    Value::Object(data)
}

fn field_of_mlflow(field: &str, fact: &Value) -> Value {
    let first = |names: &[&str]| {
        let found = names.iter().filter_map(|name| fact.get(name));
        found.into_iter().find(|value| !value.is_null()).cloned()
    };
    match field {
        "name" => first(&["name", "model"]).unwrap_or_default(),
        // A number in our facts, a text in its messages.
        "version" => match first(&["version", "number", "to"]) {
            Some(Value::String(text)) => Value::String(text),
            Some(value) => Value::String(value.to_string()),
            None => Value::Null,
        },
        "tags" => match first(&["tags"]) {
            // A list of pairs is an object there.
            Some(Value::Array(pairs)) => pairs
                .iter()
                .filter_map(|pair| Some((pair["key"].as_str()?.to_owned(), pair["value"].clone())))
                .collect::<Map<_, _>>()
                .into(),
            Some(tags) => tags,
            None => json!({}),
        },
        other => first(&[other]).unwrap_or_default(),
    }
}

/// A fact that never happened, for a test: MLflow's own examples where it has one.
pub fn example(topic: &str) -> Value {
    let (tags, key) = (json!({ "example_key": "example_value" }), "example_key");
    match topic {
        "registered_model.created" => {
            json!({ "name": "example_model", "tags": tags, "description": "An example registered model" })
        }
        "model_version.created" => json!({
            "name": "example_model",
            "version": "1",
            "source": "models:/123",
            "run_id": "abcd1234abcd5678",
            "tags": tags,
            "description": "An example model version",
        }),
        "model_version_tag.set" => {
            json!({ "name": "example_model", "version": "1", "key": key, "value": "example_value" })
        }
        "model_version_tag.deleted" => {
            json!({ "name": "example_model", "version": "1", "key": key })
        }
        "model_version_alias.created" => {
            json!({ "name": "example_model", "alias": "example_alias", "version": "1" })
        }
        "model_version_alias.deleted" => {
            json!({ "name": "example_model", "alias": "example_alias" })
        }
        "prompt.created" => {
            json!({ "name": "example_prompt", "tags": tags, "description": "An example prompt" })
        }
        "prompt_version.created" => json!({
            "name": "example_prompt",
            "version": "1",
            "template": "Hello {{name}}!",
            "tags": tags,
            "description": "An example prompt version",
        }),
        "prompt_tag.set" => {
            json!({ "name": "example_prompt", "key": key, "value": "example_value" })
        }
        "prompt_tag.deleted" => json!({ "name": "example_prompt", "key": key }),
        "prompt_version_tag.set" => {
            json!({ "name": "example_prompt", "version": "1", "key": key, "value": "example_value" })
        }
        "prompt_version_tag.deleted" => {
            json!({ "name": "example_prompt", "version": "1", "key": key })
        }
        "prompt_alias.created" => {
            json!({ "name": "example_prompt", "alias": "example_alias", "version": "1" })
        }
        "prompt_alias.deleted" => json!({ "name": "example_prompt", "alias": "example_alias" }),
        _ => json!({ "example": true }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: Timestamp = Timestamp(1_700_000_000_123);

    fn text(flavour: Flavour, topic: &str, doc: &Value) -> String {
        String::from_utf8(body(flavour, topic, AT, &doc.to_string()).to_vec()).unwrap()
    }

    #[test]
    fn ours_is_the_fact_in_an_envelope() {
        let fact = json!({ "model": "tux", "alias": "champion", "from": null, "to": 1 });
        assert_eq!(
            text(Flavour::Pomona, "model_version_alias.created", &fact),
            r#"{"type":"model_version_alias.created","timestamp":"2023-11-14T22:13:20.123Z","data":{"model":"tux","alias":"champion","from":null,"to":1}}"#
        );
    }

    #[test]
    fn mlflows_has_the_fields_that_its_server_sends() {
        let of = |topic: &str, fact: Value| {
            let body: Value = serde_json::from_str(&text(Flavour::Mlflow, topic, &fact)).unwrap();
            assert_eq!(body["timestamp"], "2023-11-14T22:13:20.123+00:00");
            assert_eq!(
                format!(
                    "{}.{}",
                    body["entity"].as_str().unwrap(),
                    body["action"].as_str().unwrap()
                ),
                topic
            );
            body["data"].clone()
        };
        let moved = json!({ "model": "tux", "alias": "champion", "from": 1, "to": 2, "revision": 2, "reason": "better" });
        assert_eq!(
            of("model_version_alias.created", moved.clone()),
            json!({ "name": "tux", "alias": "champion", "version": "2" })
        );
        assert_eq!(
            of("model_version_alias.deleted", moved),
            json!({ "name": "tux", "alias": "champion" })
        );
        assert_eq!(
            of(
                "model_version.created",
                json!({ "name": "tux", "version": "3", "tags": [{ "key": "a", "value": "b" }] })
            ),
            json!({ "name": "tux", "version": "3", "source": null, "run_id": null, "tags": { "a": "b" }, "description": null })
        );
        assert_eq!(
            of(
                "model_version_tag.set",
                json!({ "name": "tux", "version": 3, "key": "a", "value": "b" })
            ),
            json!({ "name": "tux", "version": "3", "key": "a", "value": "b" })
        );
    }

    #[test]
    fn an_example_has_the_fields_of_its_event() {
        for topic in [
            "registered_model.created",
            "model_version.created",
            "model_version_tag.set",
            "model_version_tag.deleted",
            "model_version_alias.created",
            "model_version_alias.deleted",
        ] {
            let example = example(topic);
            assert_eq!(of_mlflow(topic, &example), example, "{topic}");
        }
    }
}
