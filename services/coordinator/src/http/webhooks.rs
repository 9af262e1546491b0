//! Webhooks: who is told what, the log of deliveries, replays.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::webhooks::{
    CreateWebhook, DeliveriesQuery, ReplayWebhook, Replayed, TestWebhook, UpdateWebhook,
    WebhookTested, WebhookView,
};
use pomona_api::v1::{Page, PageQuery};
use pomona_domain::hook::{self, Flavour, Hook, HookStatus, MAX_DESCRIPTION};
use pomona_domain::{Code, DeliveryId, Fault, HookId, name};
use pomona_store::{HookChange, HookRefusal, MAX_HOOKS, NewHook, Secret};

use super::key::{Key, once};
use super::{Answer, App, Refusal, found, ok, page, page_request};
use crate::webhooks::{address, payload, sign};

/// What a webhook asks for, checked.
async fn checked_url(app: &App, text: &str) -> Result<(), Fault> {
    let url = address::check(text, app.hooks.policy())?;
    match app.hooks.forbidden(&url).await {
        Ok(Some((ip, what))) => Err(address::refused(&ip.to_string(), what)),
        // A receiver that is not there yet may come.
        Ok(None) | Err(_) => Ok(()),
    }
}

fn checked_description(text: Option<&String>) -> Result<(), Fault> {
    match text {
        Some(text) if text.len() > MAX_DESCRIPTION => Err(Fault::new(
            Code::TooLarge,
            format!("description: it is longer than {MAX_DESCRIPTION} bytes"),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Why nothing was done to a webhook, by the name that it has or should have.
fn refusal(which: &str, refusal: HookRefusal) -> Fault {
    match refusal {
        HookRefusal::Missing => missing(which),
        HookRefusal::NameTaken => {
            let text = format!("there is a webhook `{which}` already");
            Fault::new(Code::AlreadyExists, text).hint("give this one another name")
        }
        HookRefusal::TooMany => {
            let text = format!("there are {MAX_HOOKS} webhooks already");
            Fault::new(Code::TooLarge, text).hint("remove one that nobody needs")
        }
    }
}

fn missing(which: &str) -> Fault {
    Fault::new(Code::NotFound, format!("there is no webhook `{which}`"))
        .hint("`pomona webhook list` shows those that are there")
}

/// A webhook by its id, or by a name that no other one has.
async fn find(app: &App, which: &str) -> Result<Hook, Refusal> {
    if let Ok(id) = which.parse::<HookId>() {
        return Ok(app
            .store
            .hook_get(id)
            .await?
            .ok_or_else(|| missing(which))?);
    }
    let mut named = app.store.hook_named(which).await?;
    match (named.pop(), named.is_empty()) {
        (Some(hook), true) => Ok(hook),
        (Some(_), false) => {
            let text = format!("several webhooks have the name `{which}`");
            Err(Fault::new(Code::Ambiguous, text)
                .hint("say which by its id")
                .into())
        }
        (None, _) => Err(missing(which).into()),
    }
}

async fn view(app: &App, hook: Hook) -> Result<WebhookView, Refusal> {
    let (waiting, failed) = app.store.delivery_counts(hook.id).await?;
    Ok(WebhookView {
        hook,
        waiting,
        failed,
    })
}

/// `POST /api/v1/webhooks`
pub async fn create(app: Data<App>, key: Key, body: Json<CreateWebhook>) -> Answer {
    let work = async {
        name::check("name", &body.name)?;
        checked_description(body.description.as_ref())?;
        hook::check_events(&body.events)?;
        sign::check(Flavour::Pomona, &body.secret)?;
        checked_url(&app, &body.url).await?;
        let now = app.now();
        let new = NewHook {
            hook: Hook {
                id: HookId(key.seed()),
                name: body.name.clone(),
                description: body.description.clone().unwrap_or_default(),
                url: body.url.clone(),
                events: body.events.clone(),
                status: body.status.unwrap_or(HookStatus::Active),
                flavour: Flavour::Pomona,
                created_at: now,
                updated_at: now,
            },
            secret: Secret(body.secret.clone()),
        };
        let made = app.store.hook_create(&new).await?;
        view(&app, made.map_err(|why| refusal(&body.name, why))?).await
    };
    once(&app, &key, &body.0, StatusCode::CREATED, work).await
}

/// `GET /api/v1/webhooks`
pub async fn list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    let hooks = app.store.hook_list(&page_request(&query)?).await?;
    let mut items = Vec::with_capacity(hooks.items.len());
    for hook in hooks.items {
        items.push(view(&app, hook).await?);
    }
    ok(&Page {
        items,
        next_page_token: hooks.next_page_token,
    })
}

/// `GET /api/v1/webhooks/{id}`
pub async fn get(app: Data<App>, id: Path<String>) -> Answer {
    let hook = find(&app, &id).await?;
    ok(&view(&app, hook).await?)
}

/// `PATCH /api/v1/webhooks/{id}`
pub async fn update(app: Data<App>, id: Path<String>, body: Json<UpdateWebhook>) -> Answer {
    let body = body.into_inner();
    let hook = find(&app, &id).await?;
    if let Some(name) = &body.name {
        name::check("name", name)?;
    }
    checked_description(body.description.as_ref())?;
    if let (Some(events), Flavour::Pomona) = (&body.events, hook.flavour) {
        hook::check_events(events)?;
    }
    if let (Some(_), Flavour::Mlflow) = (&body.events, hook.flavour) {
        let text = "events: this webhook was made by MLflow's client, which must understand them";
        return Err(Fault::new(Code::BadWebhook, text)
            .hint("change them with `MlflowClient.update_webhook`")
            .into());
    }
    if let Some(secret) = &body.secret {
        sign::check(hook.flavour, secret)?;
    }
    if let Some(url) = &body.url {
        checked_url(&app, url).await?;
    }
    let named = body.name.clone().unwrap_or_else(|| id.clone());
    let change = HookChange {
        name: body.name,
        description: body.description,
        url: body.url,
        events: body.events,
        secret: body.secret.map(Secret),
        status: body.status,
    };
    let changed = app.store.hook_update(hook.id, &change, app.now()).await?;
    app.bus.told.notify_one();
    ok(&view(&app, changed.map_err(|why| refusal(&named, why))?).await?)
}

/// `DELETE /api/v1/webhooks/{id}`
pub async fn delete(app: Data<App>, id: Path<String>) -> Answer {
    let hook = find(&app, &id).await?;
    if app.store.hook_delete(hook.id).await? {
        return Ok(HttpResponse::NoContent().finish());
    }
    Err(missing(&id).into())
}

/// `POST /api/v1/webhooks/{id}/test`
pub async fn test(app: Data<App>, id: Path<String>, body: Json<TestWebhook>) -> Answer {
    let hook = find(&app, &id).await?;
    let event = match &body.event {
        Some(event) => {
            hook::check_events(std::slice::from_ref(event))?;
            event.clone()
        }
        None => hook.events.first().cloned().unwrap_or_default(),
    };
    ok(&tested(&app, &hook, &event).await?)
}

/// Sends a made-up event now; nothing of it is noted.
pub async fn tested(app: &App, hook: &Hook, event: &str) -> Result<WebhookTested, Refusal> {
    let secret = app.store.hook_secret(hook.id).await?;
    let secret = secret.ok_or_else(|| missing(&hook.id.to_string()))?;
    let example = payload::example(event).to_string();
    let (id, now) = (DeliveryId(rand::random()).to_string(), app.now());
    let message = payload::message(hook.flavour, &secret, (&id, event, now), &example, now);
    let answer = app.hooks.post(&hook.url, message).await;
    Ok(match answer {
        Ok(answer) => WebhookTested {
            success: (200..300).contains(&answer.status),
            status: Some(answer.status),
            body: Some(answer.body).filter(|body| !body.is_empty()),
            error: None,
        },
        Err(why) => WebhookTested {
            success: false,
            status: None,
            body: None,
            error: Some(why),
        },
    })
}

/// `GET /api/v1/webhooks/{id}/deliveries`
pub async fn deliveries(app: Data<App>, id: Path<String>, query: Query<DeliveriesQuery>) -> Answer {
    let hook = find(&app, &id).await?;
    let asked = PageQuery {
        page_size: query.page_size,
        page_token: query.page_token.clone(),
    };
    let request = page_request(&asked)?;
    let rows = app
        .store
        .delivery_list(hook.id, query.state, &request)
        .await?;
    ok(&page(rows))
}

/// `POST /api/v1/webhooks/{id}/deliveries/{delivery}/replay`
pub async fn replay_one(app: Data<App>, path: Path<(String, String)>, key: Key) -> Answer {
    let (id, delivery) = path.into_inner();
    let work = async {
        let hook = find(&app, &id).await?;
        let row = match delivery.parse::<DeliveryId>() {
            Ok(known) => app.store.delivery_replay(hook.id, known, app.now()).await?,
            Err(_) => None,
        };
        app.bus.told.notify_one();
        Ok::<_, Refusal>(found(row, "delivery", &delivery)?)
    };
    once(&app, &key, &(), StatusCode::OK, work).await
}

/// `POST /api/v1/webhooks/{id}/replay`
pub async fn replay(
    app: Data<App>,
    id: Path<String>,
    key: Key,
    body: Json<ReplayWebhook>,
) -> Answer {
    let work = async {
        let hook = find(&app, &id).await?;
        // It is told what happens from its making on.
        let since = body.since.max(hook.created_at);
        let sent = app
            .store
            .deliveries_replay(hook.id, &hook.events, since, app.now());
        let deliveries = sent.await?;
        app.bus.told.notify_one();
        Ok::<_, Refusal>(Replayed { deliveries })
    };
    once(&app, &key, &body.0, StatusCode::OK, work).await
}
