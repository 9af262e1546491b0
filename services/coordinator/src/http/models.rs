//! The registry: models, versions, aliases.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json, Path, Query};
use pomona_api::v1::models::{
    Approve, HistoryQuery, MAX_VERSIONS_SHOWN, ModelView, PublishVersion, RollbackAlias, SetAlias,
    VersionQuery, VersionSummary,
};
use pomona_api::v1::{Page, PageQuery};
use pomona_domain::gate::{Approval, GateFact, Role};
use pomona_domain::model::{Alias, Audit, Version};
use pomona_domain::task::TaskSpec;
use pomona_domain::{Change, Code, Fault, Timestamp, name};
use pomona_scheduler::{Event, RegistryWish};
use pomona_store::{ModelFace, PageRequest};

use super::actor::Caller;
use super::key::{Key, once};
use super::{Answer, App, Refusal, catalogue, found, ok, page, page_request};
use crate::engine::{self, Done, evidence};

/// A version that is being pulled is not deleted for so long.
const PULL_LEASE_MS: i64 = 10 * 60_000;
/// Moves of an alias that are shown.
const MAX_HISTORY: u32 = 1000;

/// `GET /api/v1/models`
pub async fn list(app: Data<App>, query: Query<PageQuery>) -> Answer {
    let models = app.store.model_list(&page_request(&query)?).await?;
    let mut items = Vec::with_capacity(models.items.len());
    for model in models.items {
        items.push(view(&app, model).await?);
    }
    ok(&Page {
        items,
        next_page_token: models.next_page_token,
    })
}

/// `GET /api/v1/models/{name}`
pub async fn get(app: Data<App>, name: Path<String>) -> Answer {
    let model = found(app.store.model_face(&name).await?, "model", &name)?;
    ok(&view(&app, model).await?)
}

/// A model as it is shown.
pub async fn view(app: &App, model: ModelFace) -> Result<ModelView, Refusal> {
    let request = PageRequest::first(u32::try_from(MAX_VERSIONS_SHOWN).unwrap_or(u32::MAX));
    let versions = app.store.version_list(&model.name, &request).await?;
    Ok(ModelView {
        name: model.name,
        versions: versions.items.iter().map(summary).collect(),
        aliases: model.aliases,
        description: model.description,
        tags: model.tags.into_iter().collect(),
    })
}

fn summary(version: &Version) -> VersionSummary {
    VersionSummary {
        number: version.number,
        digest: version.digest,
        trial: version.trained().map(|lineage| lineage.trial),
        size: version.files.iter().map(|file| file.size).sum(),
        gates_passed: version.gates.iter().all(|gate| gate.passed),
        metrics: version.metrics.clone(),
        created_at: version.created_at,
    }
}

/// `GET /api/v1/models/{name}/versions/{which}`
pub async fn version_get(
    app: Data<App>,
    path: Path<(String, String)>,
    query: Query<VersionQuery>,
) -> Answer {
    let (model, which) = path.into_inner();
    let version = match query.as_of {
        Some(as_of) => version_at(&app, &model, &which, as_of).await?,
        None => version(&app, &model, &which).await?,
    };
    if query.pull == Some(true) {
        let until = Timestamp(app.now().0 + PULL_LEASE_MS);
        let pulled = (model.as_str(), version.number);
        app.store.version_pulled(pulled, until).await?;
    }
    app.metrics.pulls.with_label_values(&["http"]).inc();
    ok(&version)
}

/// `GET /api/v1/models/{name}/versions/{which}/signature`
pub async fn signature(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (model, which) = path.into_inner();
    let version = version(&app, &model, &which).await?;
    if !app
        .store
        .version_was_promoted(&model, version.number)
        .await?
    {
        let text = format!(
            "`{model}@{}` was never promoted, so it is not signed",
            version.number
        );
        return Err(Fault::new(Code::NotFound, text).into());
    }
    let bytes = app.signer.sign(&version)?;
    Ok(HttpResponse::Ok()
        .content_type("application/json")
        .body(bytes))
}

/// `GET /api/v1/signing-key`
pub async fn signing_key(app: Data<App>) -> Answer {
    let text = app.signer.public()?;
    Ok(HttpResponse::Ok()
        .content_type("application/x-pem-file")
        .body(text))
}

/// A version by number or alias.
pub async fn version(app: &App, model: &str, which: &str) -> Result<Version, Refusal> {
    let number = match which.parse() {
        Ok(number) => number,
        Err(_) => match app.store.alias_get(model, which).await? {
            Some(alias) => alias.number,
            None => return Err(no_alias(app, model, which).await?.into()),
        },
    };
    let row = app.store.version_get(model, number).await?;
    Ok(found(row, "version", &format!("{model}@{which}"))?)
}

/// The version that an alias pointed to at a moment.
async fn version_at(
    app: &App,
    model: &str,
    alias: &str,
    as_of: Timestamp,
) -> Result<Version, Refusal> {
    let request = PageRequest::first(1);
    let moves = app.store.alias_history(model, alias, Some(as_of), &request);
    let then = moves.await?.items.into_iter().next();
    let then = then.filter(|row| !row.deleted).ok_or_else(|| {
        let text = format!("`{model}@{alias}` pointed nowhere at that moment");
        let hint = format!("`pomona model history {model} --alias {alias}` shows its moves");
        Fault::new(Code::NotFound, text).hint(hint)
    })?;
    let row = app.store.version_get(model, then.to).await?;
    row.ok_or_else(|| {
        let text = format!(
            "`{model}@{alias}` pointed to version {}, which was deleted",
            then.to
        );
        Fault::new(Code::NotFound, text).into()
    })
}

async fn no_alias(app: &App, model: &str, which: &str) -> Result<Fault, Refusal> {
    let Some(row) = app.store.model_face(model).await? else {
        return Ok(
            Fault::new(Code::NotFound, format!("there is no model `{model}`"))
                .hint("`pomona model list` shows those that exist"),
        );
    };
    let aliases: Vec<String> = row
        .aliases
        .iter()
        .map(|a| format!("`{}`", a.alias))
        .collect();
    let hint = if aliases.is_empty() {
        format!("it has no alias; its newest version is {}", row.newest)
    } else {
        format!(
            "it has {} and versions up to {}",
            aliases.join(", "),
            row.newest
        )
    };
    Ok(Fault::new(
        Code::NotFound,
        format!("model `{model}` has no alias `{which}`"),
    )
    .hint(hint))
}

/// `POST /api/v1/models/{name}/versions`
pub async fn publish(
    app: Data<App>,
    model: Path<String>,
    key: Key,
    body: Json<PublishVersion>,
) -> Answer {
    let work = async {
        name::check("model", &model)?;
        if let Some(alias) = &body.alias {
            name::check_alias("alias", alias)?;
        }
        let source = engine::source(&app.store, body.trial).await?;
        let spec = TaskSpec::Publish {
            model: model.clone(),
            trial: body.trial,
            alias: body.alias.clone(),
        };
        catalogue::submit(&app, &key, spec, Some(source)).await
    };
    once(&app, &key, &body.0, StatusCode::ACCEPTED, work).await
}

/// `POST /api/v1/models/{name}/versions/{which}/approvals`
pub async fn approve(
    app: Data<App>,
    path: Path<(String, String)>,
    key: Key,
    body: Json<Approve>,
) -> Answer {
    let (model, which) = path.into_inner();
    let work = async {
        let row = version(&app, &model, &which).await?;
        let role = Role::parse(&body.role).ok_or_else(|| {
            let known = Role::ALL.map(|role| format!("`{role}`")).join(", ");
            Fault::new(
                Code::BadRequest,
                format!("role: `{}` is no role", body.role),
            )
            .hint(format!("the roles are {known}"))
        })?;
        let approval = Approval {
            model: row.model,
            number: row.number,
            role,
            actor: body.actor.trim().to_owned(),
            at: app.now(),
            reason: body.reason.clone().unwrap_or_default(),
        };
        approval.check()?;
        let done = app.engine.decide(Event::Approved(approval)).await?;
        let kept = done.changes.into_iter().find_map(|change| {
            if let Change::Gates(GateFact::Approved(row)) = change {
                Some(row)
            } else {
                None
            }
        });
        Ok(found(kept, "approval", &format!("{model}@{which}"))?)
    };
    once(&app, &key, &body.0, StatusCode::CREATED, work).await
}

/// `GET /api/v1/models/{name}/versions/{which}/approvals`
pub async fn approval_list(app: Data<App>, path: Path<(String, String)>) -> Answer {
    let (model, which) = path.into_inner();
    let row = version(&app, &model, &which).await?;
    ok(&app.store.approval_list(&model, row.number).await?)
}

/// `GET /api/v1/models/{name}/aliases/{alias}/decisions`
pub async fn decision_list(
    app: Data<App>,
    path: Path<(String, String)>,
    query: Query<PageQuery>,
) -> Answer {
    let (model, alias) = path.into_inner();
    found(app.store.model_face(&model).await?, "model", &model)?;
    let request = page_request(&query)?;
    let rows = app.store.judgement_list(&model, &alias, &request).await?;
    ok(&page(rows))
}

/// `PUT /api/v1/models/{name}/aliases/{alias}`
pub async fn alias_set(
    app: Data<App>,
    path: Path<(String, String)>,
    key: Key,
    Caller(by): Caller,
    body: Json<SetAlias>,
) -> Answer {
    let (model, alias) = path.into_inner();
    let work = async {
        name::check_alias("alias", &alias)?;
        let why = reason(body.reason.as_deref(), "set by request");
        let asked = (body.expected_revision, why);
        let place = (model.as_str(), alias.as_str());
        let event = evidence::alias_set(&app.store, place, body.version, asked, by).await?;
        moved(&app, &model, &alias, event).await
    };
    once(&app, &key, &body.0, StatusCode::OK, work).await
}

/// `POST /api/v1/models/{name}/aliases/{alias}/rollback`
pub async fn alias_rollback(
    app: Data<App>,
    path: Path<(String, String)>,
    key: Key,
    Caller(by): Caller,
    body: Json<RollbackAlias>,
) -> Answer {
    let (model, alias) = path.into_inner();
    let work = async {
        let event = Event::AliasRollback {
            model: model.clone(),
            alias: alias.clone(),
            reason: reason(body.reason.as_deref(), "rolled back by request"),
            to: version_before(&app, &model, &alias).await?,
            by,
        };
        moved(&app, &model, &alias, event).await
    };
    once(&app, &key, &body.0, StatusCode::OK, work).await
}

/// The version an alias pointed to before the one it points to now.
async fn version_before(app: &App, model: &str, alias: &str) -> Result<u32, Refusal> {
    if app.store.alias_get(model, alias).await?.is_none() {
        return Err(no_alias(app, model, alias).await?.into());
    }
    let request = PageRequest::first(1);
    let newest = app
        .store
        .alias_history(model, alias, None, &request)
        .await?;
    let before = newest.items.first().and_then(|row| row.from);
    before.ok_or_else(|| {
        Fault::new(
            Code::WrongState,
            format!("alias `{model}@{alias}` never pointed to another version"),
        )
        .into()
    })
}

fn reason(given: Option<&str>, default: &str) -> String {
    given
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .unwrap_or(default)
        .to_owned()
}

/// Lets the engine decide; what it refuses stands in the audit, too.
pub async fn decide_and_audit(app: &App, event: Event) -> Result<Done, Fault> {
    let refused = refused_entry(&event);
    match app.engine.decide(event).await {
        Err(fault) if fault.code.http_status() < 500 => {
            if let Some(entry) = refused {
                let at = app.now();
                let detail = fault.to_string();
                app.store
                    .audit_add(&Audit {
                        at,
                        detail,
                        ..entry
                    })
                    .await?;
            }
            Err(fault)
        }
        answer => answer,
    }
}

/// What the audit says of an event that is refused.
fn refused_entry(event: &Event) -> Option<Audit> {
    let (model, by, action) =
        if let Event::AliasSet { model, by, .. } | Event::AliasRollback { model, by, .. } = event {
            (model, by, "alias.moved")
        } else if let Event::Registry { model, wish, by } = event {
            let action = match wish {
                RegistryWish::DeleteAlias { .. } => "alias.deleted",
                RegistryWish::Register { .. } => "version.registered",
                RegistryWish::DeleteVersion { .. } => "version.deleted",
                RegistryWish::DeleteModel { .. } => "model.deleted",
                RegistryWish::Rename { .. } => "model.renamed",
            };
            (model, by, action)
        } else {
            return None;
        };
    Some(Audit {
        at: Timestamp(0),
        by: by.clone(),
        action: action.to_owned(),
        subject: format!("model/{model}"),
        result: "refused".to_owned(),
        detail: String::new(),
    })
}

async fn moved(app: &App, model: &str, alias: &str, event: Event) -> Result<Alias, Refusal> {
    let done = decide_and_audit(app, event).await?;
    let head = done.view.alias(model, alias).cloned();
    Ok(found(head, "alias", &format!("{model}@{alias}"))?)
}

/// `GET /api/v1/models/{name}/aliases/{alias}/history`: the newest moves, oldest first.
pub async fn alias_history(
    app: Data<App>,
    path: Path<(String, String)>,
    query: Query<HistoryQuery>,
) -> Answer {
    let (model, alias) = path.into_inner();
    let request = PageRequest::first(MAX_HISTORY);
    let mut moves = app
        .store
        .alias_history(&model, &alias, query.as_of, &request)
        .await?
        .items;
    // An alias that was deleted keeps its history.
    if moves.is_empty() && app.store.alias_get(&model, &alias).await?.is_none() {
        return Err(no_alias(&app, &model, &alias).await?.into());
    }
    moves.reverse();
    ok(&moves)
}
