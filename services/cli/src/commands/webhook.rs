//! `webhook`: addresses that are told what happens.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pomona_api::v1::webhooks::{
    CreateWebhook, DeliveriesQuery, ReplayWebhook, TestWebhook, UpdateWebhook, WebhookView,
};
use pomona_domain::hook::{self, EVENTS, HookStatus};
use pomona_domain::{Code, Fault, Timestamp, name};
use serde::Serialize;
use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::Done;
use super::session::{Session, all, key};
use crate::args::webhook::{AddArgs, WebhookCommand};
use crate::human::{now, plural};
use crate::views;

/// Bytes of a secret that is drawn.
const SECRET_BYTES: usize = 32;

/// `pomona webhook`.
pub async fn run(command: WebhookCommand, session: Session) -> Result<Done, Fault> {
    let session = &session;
    match command {
        WebhookCommand::Add(args) => add(args, session).await,
        WebhookCommand::List => list(session).await,
        WebhookCommand::Show(webhook) => {
            let row = session.client.webhook_get(&webhook.which).await?;
            Ok(shown(&row, session))
        }
        WebhookCommand::Test { webhook, event } => test(&webhook.which, event, session).await,
        WebhookCommand::Deliveries {
            webhook,
            state,
            limit,
        } => deliveries(&webhook.which, state.as_deref(), limit, session).await,
        WebhookCommand::Replay {
            webhook,
            delivery,
            since,
        } => match (delivery, since) {
            (Some(delivery), _) => replay_one(&webhook.which, &delivery, session).await,
            (None, since) => {
                let since = moment(since.as_deref().unwrap_or_default())?;
                replay(&webhook.which, since, session).await
            }
        },
        WebhookCommand::Disable(webhook) => {
            set(&webhook.which, HookStatus::Disabled, session).await
        }
        WebhookCommand::Enable(webhook) => set(&webhook.which, HookStatus::Active, session).await,
        WebhookCommand::Remove(webhook) => {
            session.client.webhook_delete(&webhook.which).await?;
            let text = format!("webhook `{}` is forgotten", webhook.which);
            session.printer.say(&text);
            Ok(Done::Well)
        }
    }
}

fn moment(text: &str) -> Result<Timestamp, Fault> {
    let full = if text.contains('T') {
        text.to_owned()
    } else {
        format!("{text}T00:00:00Z")
    };
    serde_json::from_value(full.into()).map_err(|_| {
        Fault::new(
            Code::BadRequest,
            format!("`--since {text}` is not a moment"),
        )
        .hint("write RFC 3339 like `2026-05-03T12:00:00Z`, or a date")
    })
}

/// A webhook and the secret that was drawn for it, which nobody else can say.
#[derive(Serialize)]
struct Added {
    #[serde(flatten)]
    view: WebhookView,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
}

async fn add(args: AddArgs, session: &Session) -> Result<Done, Fault> {
    name::check("name", &args.name)?;
    let events = if args.events.is_empty() {
        EVENTS.iter().map(|event| (*event).to_owned()).collect()
    } else {
        args.events
    };
    hook::check_events(&events)?;
    let (secret, is_new) = match &args.secret_file {
        Some(path) => (secret_in(path)?, false),
        None => (draw(), true),
    };
    let body = CreateWebhook {
        name: args.name,
        url: args.url,
        events,
        secret: secret.clone(),
        description: args.description,
        status: None,
    };
    let view = session.client.webhook_create(&body, &key()).await?;
    let added = Added {
        view,
        secret: is_new.then_some(secret),
    };
    session.printer.data(&added, |style| {
        views::webhook::show(style, now(), &added.view, added.secret.as_deref())
    });
    if is_new {
        let text = "the secret is shown this once: give it to the receiver";
        session.printer.say(text);
    }
    Ok(Done::Well)
}

fn draw() -> String {
    let drawn: [u8; SECRET_BYTES] = rand::random();
    format!("whsec_{}", STANDARD.encode(drawn))
}

/// The secret in a file, which is made for its owner alone when it is not there.
fn secret_in(path: &Path) -> Result<String, Fault> {
    let bad = |error: std::io::Error| {
        let text = format!("`{}` cannot be used: {error}", path.display());
        Fault::new(Code::LocalFile, text)
    };
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(bad(error)),
        Err(_) => {
            let secret = draw();
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o600);
            let mut file = options.open(path).map_err(bad)?;
            writeln!(file, "{secret}").map_err(bad)?;
            Ok(secret)
        }
    }
}

async fn list(session: &Session) -> Result<Done, Fault> {
    let page = all(|query| async move { session.client.webhook_list(&query).await }).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "no webhook yet: `pomona webhook add` makes one".to_owned();
        }
        views::webhook::list(style, &page.items)
    });
    Ok(Done::Well)
}

fn shown(row: &WebhookView, session: &Session) -> Done {
    let printer = &session.printer;
    printer.data(row, |style| views::webhook::show(style, now(), row, None));
    Done::Well
}

async fn test(which: &str, event: Option<String>, session: &Session) -> Result<Done, Fault> {
    let body = TestWebhook { event };
    let tested = session.client.webhook_test(which, &body).await?;
    session
        .printer
        .data(&tested, |style| views::webhook::tested(style, &tested));
    Ok(if tested.success {
        Done::Well
    } else {
        Done::Poorly
    })
}

async fn deliveries(
    which: &str,
    state: Option<&str>,
    limit: u32,
    session: &Session,
) -> Result<Done, Fault> {
    let state = state.map(|text| {
        text.parse().map_err(|_| {
            Fault::new(Code::BadRequest, format!("`--state {text}` is no state"))
                .hint("it is `pending`, `delivered`, `failed` or `dropped`")
        })
    });
    let query = DeliveriesQuery {
        state: state.transpose()?,
        page_size: Some(limit),
        page_token: None,
    };
    let page = session.client.webhook_deliveries(which, &query).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return format!("nothing to show of what `{which}` was told");
        }
        views::webhook::deliveries(style, now(), &page.items)
    });
    Ok(Done::Well)
}

async fn replay_one(which: &str, delivery: &str, session: &Session) -> Result<Done, Fault> {
    let row = session.client.webhook_replay_one(which, delivery).await?;
    let rows = std::slice::from_ref(&row);
    session
        .printer
        .data(&row, |style| views::webhook::deliveries(style, now(), rows));
    Ok(Done::Well)
}

async fn replay(which: &str, since: Timestamp, session: &Session) -> Result<Done, Fault> {
    let body = ReplayWebhook { since };
    let sent = session.client.webhook_replay(which, &body, &key()).await?;
    session.printer.data(&sent, |_| {
        let count = plural(sent.deliveries, "event");
        format!("on the way to `{which}` once more: {count}")
    });
    Ok(Done::Well)
}

async fn set(which: &str, status: HookStatus, session: &Session) -> Result<Done, Fault> {
    let body = UpdateWebhook {
        status: Some(status),
        ..UpdateWebhook::default()
    };
    let row = session.client.webhook_update(which, &body).await?;
    Ok(shown(&row, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_drawn_once_for_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ci.secret");
        let first = secret_in(&path).unwrap();
        assert!(first.starts_with("whsec_") && first.len() > 40, "{first}");
        assert_eq!(secret_in(&path).unwrap(), first);
        assert_ne!(draw(), draw());
        let missing = folder.path().join("no/such/folder");
        assert_eq!(secret_in(&missing).unwrap_err().code, Code::LocalFile);
    }

    #[test]
    fn a_date_begins_at_midnight() {
        assert_eq!(
            moment("2026-05-03").unwrap(),
            moment("2026-05-03T00:00:00Z").unwrap()
        );
        assert_eq!(moment("yesterday").unwrap_err().code, Code::BadRequest);
    }
}
