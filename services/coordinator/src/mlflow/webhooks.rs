//! Webhooks, as MLflow's clients manage them.
//!
//! What they make is delivered by the same outbox as ours, in MLflow's words: its headers, its
//! payloads. A secret never comes back.

use actix_web::HttpRequest;
use actix_web::web::{Bytes, Data, Path};
use pomona_domain::hook::{Flavour, Hook, HookStatus, MAX_DESCRIPTION, MAX_URL};
use pomona_domain::{Fault, HookId};
use pomona_store::{HookChange, HookRefusal, MAX_HOOKS, NewHook, Secret};
use pomona_tracking::params::Body;
use pomona_tracking::{ErrorCode, Refusal, limits, token, webhooks as words};
use serde_json::{Value, json};

use super::experiments::{offset, page};
use super::{Answer, Refused, parameters, render};
use crate::http::App;
use crate::http::webhooks::tested;
use crate::webhooks::{address, sign};

fn message(hook: &Hook) -> Value {
    let events: Vec<Value> = (hook.events.iter())
        .map(|event| {
            let (entity, action) = words::parts(event);
            json!({ "entity": entity, "action": action })
        })
        .collect();
    let mut message = json!({
        "webhook_id": hook.id,
        "name": hook.name,
        "url": hook.url,
        "events": events,
        "status": hook.status,
        "creation_timestamp": hook.created_at.0,
        "last_updated_timestamp": hook.updated_at.0,
    });
    if !hook.description.is_empty() {
        message["description"] = json!(hook.description);
    }
    message
}

fn one(hook: &Hook) -> Answer {
    render::ok(&json!({ "webhook": message(hook) }))
}

async fn find(app: &App, id: &str) -> Result<Hook, Refused> {
    let hook = match id.parse::<HookId>() {
        Ok(known) => app.store.hook_get(known).await?,
        Err(_) => None,
    };
    // Ours have events that its client cannot read.
    let hook = hook.filter(|hook| hook.flavour == Flavour::Mlflow);
    Ok(hook.ok_or_else(|| words::missing(id))?)
}

fn refused(id: &str, refusal: HookRefusal) -> Refused {
    match refusal {
        HookRefusal::Missing | HookRefusal::NameTaken => words::missing(id),
        HookRefusal::TooMany => Refusal::new(
            ErrorCode::ResourceExhausted,
            format!("There are {MAX_HOOKS} webhooks already."),
        ),
    }
    .into()
}

/// An address by MLflow's rules: `https`, and a name that leads to public addresses; what the
/// configuration allows besides is allowed here, too.
async fn check_url(app: &App, text: &str) -> Result<(), Refused> {
    if text.trim().is_empty() {
        return Err(words::url_empty(text).into());
    }
    let policy = app.hooks.policy();
    let allowed = if policy.is_open() {
        "https, http"
    } else {
        "https"
    };
    let scheme = text
        .split_once(':')
        .map_or("", |(scheme, _)| scheme)
        .to_lowercase();
    if !allowed.split(", ").any(|one| one == scheme) {
        return Err(words::url_scheme(&scheme, allowed).into());
    }
    if text.len() > MAX_URL {
        return Err(words::url_invalid(text, "it is too long").into());
    }
    let invalid = |fault: Fault| Refused::from(words::url_invalid(text, &fault.message));
    let url = address::check(text, policy).map_err(|fault| {
        // A number that is not allowed has a sentence of its own.
        match url_literal(text).filter(|ip| policy.refuses(*ip).is_some()) {
            Some(ip) => words::url_private(&ip.to_string(), &ip.to_string()).into(),
            None => invalid(fault),
        }
    })?;
    let host = url.host_str().unwrap_or_default();
    match app.hooks.forbidden(&url).await {
        Ok(None) => Ok(()),
        Ok(Some((ip, _))) => Err(words::url_private(host, &ip.to_string()).into()),
        // Where all is allowed MLflow's server looks nothing up.
        Err(_) if policy.allow_private => Ok(()),
        Err(why) => Err(words::url_unresolved(host, &why).into()),
    }
}

fn url_literal(text: &str) -> Option<std::net::IpAddr> {
    address::literal(&url::Url::parse(text).ok()?)
}

fn check_secret(secret: &str) -> Result<(), Refused> {
    sign::check(Flavour::Mlflow, secret).map_err(|fault| Refusal::invalid(fault.message).into())
}

fn check_description(text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_DESCRIPTION {
        let text = format!("Webhook description is longer than {MAX_DESCRIPTION} bytes.");
        return Err(Refusal::invalid(text));
    }
    Ok(())
}

fn status(body: &Body<'_>) -> Result<Option<HookStatus>, Refusal> {
    body.optional_choice(
        "status",
        &[
            ("ACTIVE", HookStatus::Active),
            ("DISABLED", HookStatus::Disabled),
        ],
    )
}

/// `POST webhooks`
pub async fn create(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let (name, url) = (body.required_str("name")?, body.required_str("url")?);
    let events = words::events(&body, "events")?;
    if events.is_empty() {
        return Err(body.missing("events").into());
    }
    let description = body.optional_str("description")?.unwrap_or_default();
    let secret = body.optional_str("secret")?.unwrap_or_default();
    let status = status(&body)?.unwrap_or(HookStatus::Active);
    words::name(name)?;
    check_description(description)?;
    check_secret(secret)?;
    check_url(&app, url).await?;
    let now = app.now();
    let new = NewHook {
        hook: Hook {
            id: HookId(rand::random()),
            name: name.to_owned(),
            description: description.to_owned(),
            url: url.to_owned(),
            events,
            status,
            flavour: Flavour::Mlflow,
            created_at: now,
            updated_at: now,
        },
        secret: Secret(secret.to_owned()),
    };
    let made = app.store.hook_create(&new).await?;
    one(&made.map_err(|refusal| refused(name, refusal))?)
}

/// `GET webhooks`
pub async fn list(app: Data<App>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let size = match body.optional_i64("max_results")? {
        // Protobuf cannot tell nothing from 0.
        Some(0) => limits::WEBHOOKS.default_size(),
        _ => limits::WEBHOOKS.read(&body)?,
    };
    let from = offset(&body)?;
    let mut hooks = app.store.hook_list_mlflow(from, size as u64 + 1).await?;
    let next = token::next(from, size, hooks.len());
    hooks.truncate(size);
    let messages: Vec<Value> = hooks.iter().map(message).collect();
    render::ok(&page("webhooks", &messages, next))
}

/// `GET webhooks/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    one(&find(&app, &id).await?)
}

/// `PATCH webhooks/{id}`
pub async fn update(
    app: Data<App>,
    id: Path<String>,
    request: HttpRequest,
    bytes: Bytes,
) -> Answer {
    let body = parameters(&request, &bytes)?;
    let hook = find(&app, &id).await?;
    // Where protobuf cannot tell nothing from an empty text, it is nothing.
    let text = |name| Ok::<_, Refusal>(body.optional_str(name)?.filter(|text| !text.is_empty()));
    let (name, url) = (text("name")?, text("url")?);
    let description = body.optional_str("description")?;
    let secret = body.optional_str("secret")?;
    let events = words::events(&body, "events")?;
    let status = status(&body)?;
    if let Some(name) = name {
        words::name(name)?;
    }
    check_description(description.unwrap_or_default())?;
    check_secret(secret.unwrap_or_default())?;
    if let Some(url) = url {
        check_url(&app, url).await?;
    }
    let change = HookChange {
        name: name.map(str::to_owned),
        description: description.map(str::to_owned),
        url: url.map(str::to_owned),
        events: Some(events).filter(|events| !events.is_empty()),
        secret: secret.map(|secret| Secret(secret.to_owned())),
        status,
    };
    let changed = app.store.hook_update(hook.id, &change, app.now()).await?;
    app.bus.told.notify_one();
    one(&changed.map_err(|refusal| refused(&id, refusal))?)
}

/// `DELETE webhooks/{id}`
pub async fn delete(app: Data<App>, id: Path<String>) -> Answer {
    let hook = find(&app, &id).await?;
    app.store.hook_delete(hook.id).await?;
    render::empty()
}

/// `POST webhooks/{id}/test`
pub async fn test(app: Data<App>, id: Path<String>, request: HttpRequest, bytes: Bytes) -> Answer {
    let body = parameters(&request, &bytes)?;
    let hook = find(&app, &id).await?;
    let event = match body.optional_message("event")? {
        Some(event) => words::event(&event)?,
        None => hook.events.first().cloned().unwrap_or_default(),
    };
    let tested = tested(&app, &hook, &event).await;
    let tested = tested.map_err(|refusal| Refused::from(refusal.into_fault()))?;
    let mut result = json!({ "success": tested.success });
    if let Some(status) = tested.status {
        result["response_status"] = json!(status);
    }
    if let Some(body) = tested.body {
        result["response_body"] = json!(body);
    }
    if let Some(error) = tested.error {
        result["error_message"] = json!(format!("Failed to test webhook: {error}"));
    }
    render::ok(&json!({ "result": result }))
}
