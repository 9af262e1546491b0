//! Webhooks in MLflow's messages: their names, their events, and the sentences by which its server
//! refuses them.
//!
//! Events about prompts and budgets are read, because its client may ask for them; nothing here makes
//! them happen.

use crate::{Body, Refusal};

/// Entities and what can happen to them, as MLflow's client knows them.
const ENTITIES: &[(&str, &[&str])] = &[
    ("REGISTERED_MODEL", &["CREATED"]),
    ("MODEL_VERSION", &["CREATED"]),
    ("MODEL_VERSION_TAG", &["DELETED", "SET"]),
    ("MODEL_VERSION_ALIAS", &["CREATED", "DELETED"]),
    ("PROMPT", &["CREATED"]),
    ("PROMPT_VERSION", &["CREATED"]),
    ("PROMPT_TAG", &["DELETED", "SET"]),
    ("PROMPT_VERSION_TAG", &["DELETED", "SET"]),
    ("PROMPT_ALIAS", &["CREATED", "DELETED"]),
    ("BUDGET_POLICY", &["EXCEEDED"]),
];
/// What can happen to something.
const ACTIONS: &[&str] = &["CREATED", "UPDATED", "DELETED", "SET", "EXCEEDED"];
/// The longest name.
const MAX_NAME: usize = 63;

/// Refuses a name that MLflow's server refuses.
pub fn name(name: &str) -> Result<(), Refusal> {
    let edge = |byte: &u8| byte.is_ascii_alphanumeric();
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let bytes = name.as_bytes();
    let fits = bytes.len() <= MAX_NAME
        && bytes.first().is_some_and(edge)
        && bytes.last().is_some_and(edge)
        && name.bytes().all(inner);
    if fits {
        return Ok(());
    }
    Err(Refusal::invalid(format!(
        "Webhook name {} is invalid. It must start and end with a letter or digit, be less than 63 \
         characters long, and contain only letters, digits, dots (.), underscores (_), and hyphens \
         (-).",
        quoted(name)
    )))
}

/// The events of a request by our names (`model_version.created`), each once; none when it has none.
pub fn events(body: &Body<'_>, field: &str) -> Result<Vec<String>, Refusal> {
    let mut events = body.list(field, event)?;
    let mut seen = std::collections::BTreeSet::new();
    events.retain(|event| seen.insert(event.clone()));
    Ok(events)
}

/// The event of a message `WebhookEvent`.
pub fn event(body: &Body<'_>) -> Result<String, Refusal> {
    let word = |field: &str| {
        let text = body.required_str(field)?;
        // Protobuf's JSON has an enum's name.
        Ok::<_, Refusal>(text.to_owned())
    };
    let (entity, action) = (word("entity")?, word("action")?);
    let known = ENTITIES.iter().find(|(name, _)| *name == entity);
    let Some((_, actions)) = known else {
        return Err(body.invalid("entity", &entity.into()));
    };
    if !ACTIONS.contains(&action.as_str()) {
        return Err(body.invalid("action", &action.into()));
    }
    let (entity, action) = (entity.to_lowercase(), action.to_lowercase());
    if actions.iter().any(|name| name.to_lowercase() == action) {
        return Ok(format!("{entity}.{action}"));
    }
    let valid: Vec<String> = (actions.iter())
        .map(|name| format!("'{}'", name.to_lowercase()))
        .collect();
    Err(Refusal::invalid(format!(
        "Invalid action '{action}' for entity '{entity}'. Valid actions are: [{}]",
        valid.join(", ")
    )))
}

/// Entity and action of an event, as MLflow's messages name them.
pub fn parts(event: &str) -> (String, String) {
    let (entity, action) = event.split_once('.').unwrap_or((event, ""));
    (entity.to_uppercase(), action.to_uppercase())
}

/// An empty address.
pub fn url_empty(url: &str) -> Refusal {
    Refusal::invalid(format!(
        "Webhook URL cannot be empty or just whitespace: {}",
        quoted(url)
    ))
}

/// A scheme that is not allowed.
pub fn url_scheme(scheme: &str, allowed: &str) -> Refusal {
    Refusal::invalid(format!(
        "Invalid webhook URL scheme: {}. Allowed schemes are: {allowed}.",
        quoted(scheme)
    ))
}

/// A name that leads where nothing may be sent.
pub fn url_private(host: &str, address: &str) -> Refusal {
    Refusal::invalid(format!(
        "Webhook URL must not resolve to a non-public IP address. {} resolves to {address}.",
        quoted(host)
    ))
}

/// A name that leads nowhere.
pub fn url_unresolved(host: &str, why: &str) -> Refusal {
    Refusal::invalid(format!(
        "Cannot resolve Webhook URL hostname {}: {why}",
        quoted(host)
    ))
}

/// Whatever else is wrong with an address.
pub fn url_invalid(url: &str, why: &str) -> Refusal {
    Refusal::invalid(format!("Invalid webhook URL {}: {why}", quoted(url)))
}

/// There is no such webhook.
pub fn missing(id: &str) -> Refusal {
    Refusal::missing(format!("Webhook with ID {id} not found."))
}

/// As Python shows a text, and not too much of it.
fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(500).collect();
    let shown = shown.escape_default().to_string();
    format!("'{}'", shown.replace("\\\"", "\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let body = Body::parse(text.as_bytes()).unwrap();
        events(&body, "events").map_err(|refusal| refusal.message)
    }

    #[test]
    fn names_are_those_that_mlflow_takes() {
        for good in ["a", "a1", "My.hook_1-x", "0", &"x".repeat(63)] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in ["", "-a", "a-", "a b", ".a", "ä", "a/b", &"x".repeat(64)] {
            assert!(name(bad).is_err(), "{bad}");
        }
        assert_eq!(
            name("a b").unwrap_err().message,
            "Webhook name 'a b' is invalid. It must start and end with a letter or digit, be less \
             than 63 characters long, and contain only letters, digits, dots (.), underscores (_), \
             and hyphens (-)."
        );
    }

    #[test]
    fn events_are_read_once_each() {
        let two = r#"{"events": [{"entity": "MODEL_VERSION", "action": "CREATED"},
            {"entity": "MODEL_VERSION_ALIAS", "action": "DELETED"},
            {"entity": "MODEL_VERSION", "action": "CREATED"}]}"#;
        let expect = ["model_version.created", "model_version_alias.deleted"];
        assert_eq!(read(two).unwrap(), expect);
        assert_eq!(read("{}").unwrap(), [""; 0]);
        assert_eq!(
            parts("model_version_tag.set"),
            ("MODEL_VERSION_TAG".to_owned(), "SET".to_owned())
        );
    }

    #[test]
    fn what_cannot_happen_is_refused() {
        assert_eq!(
            read(r#"{"events": [{"entity": "MODEL_VERSION_TAG", "action": "CREATED"}]}"#)
                .unwrap_err(),
            "Invalid action 'created' for entity 'model_version_tag'. Valid actions are: \
             ['deleted', 'set']"
        );
        for bad in [
            r#"{"events": [{"entity": "TRIAL", "action": "CREATED"}]}"#,
            r#"{"events": [{"entity": "MODEL_VERSION", "action": "EATEN"}]}"#,
            r#"{"events": [{"entity": "MODEL_VERSION"}]}"#,
            r#"{"events": [7]}"#,
            r#"{"events": "all"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
