//! `model`: the registry.

use pomona_api::v1::Page;
use pomona_api::v1::models::{
    AuditQuery, ChangeWords, ModelView, PublishVersion, RollbackAlias, SetAlias,
};
use pomona_domain::model::{Alias, AliasMove};
use pomona_domain::task::TaskResult;
use pomona_domain::{Code, Fault, Timestamp, name};

use super::session::{Session, all, key};
use super::{Done, ask, pull, task};
use crate::args::GlobalArgs;
use crate::args::model::{AuditArgs, ModelCommand};
use crate::human::{now, parse_moment, plural};
use crate::printer::Printer;
use crate::views;

/// `pomona model`.
pub fn run(command: ModelCommand, global: &GlobalArgs, printer: &Printer) -> Result<Done, Fault> {
    match command {
        ModelCommand::List => ask(global, printer, list),
        ModelCommand::Show { name, as_of } => {
            let as_of = as_of.as_deref().map(moment).transpose()?;
            ask(global, printer, |s| show(name, as_of, s))
        }
        ModelCommand::Delete { name } => ask(global, printer, |s| delete(name, s)),
        ModelCommand::Describe { name, text } => {
            let words = ChangeWords {
                description: Some(text),
                ..ChangeWords::default()
            };
            ask(global, printer, |s| change(name, words, s))
        }
        ModelCommand::Tag { name, tags } => {
            let words = ChangeWords {
                tags: tags
                    .iter()
                    .map(|text| tag(text))
                    .collect::<Result<_, _>>()?,
                ..ChangeWords::default()
            };
            ask(global, printer, |s| change(name, words, s))
        }
        ModelCommand::Register { name, trial, alias } => {
            ask(global, printer, |s| register(name, trial, alias, s))
        }
        ModelCommand::Promote {
            name,
            version,
            alias,
            reason,
        } => {
            let wanted = SetAlias {
                version,
                expected_revision: None,
                reason,
            };
            ask(global, printer, |s| promote(name, alias, wanted, s))
        }
        ModelCommand::Rollback {
            name,
            alias,
            reason,
        } => ask(global, printer, |s| rollback(name, alias, reason, s)),
        ModelCommand::History { name, alias, as_of } => {
            let as_of = as_of.as_deref().map(moment).transpose()?;
            ask(global, printer, |s| history(name, alias, as_of, s))
        }
        ModelCommand::Pull { model, dir, verify } => {
            ask(global, printer, |s| pull::pull(model, dir, verify, s))
        }
        ModelCommand::Key => ask(global, printer, pull::key),
        ModelCommand::Verify {
            dir,
            model,
            digest,
            key,
        } => match (digest, key) {
            (Some(digest), _) => pull::verify_digest(&dir, &digest, printer),
            (None, Some(key)) => pull::verify_signature(&dir, &key, printer),
            (None, None) => ask(global, printer, |s| pull::verify(dir, model, s)),
        },
    }
}

fn moment(text: &str) -> Result<Timestamp, Fault> {
    parse_moment(text).ok_or_else(|| {
        Fault::new(
            Code::BadRequest,
            format!("`--as-of {text}` is not a moment"),
        )
        .hint("write RFC 3339 like `2026-05-03T12:00:00Z`, or a date, which means its end in UTC")
    })
}

async fn list(session: Session) -> Result<Done, Fault> {
    let session = &session;
    let page = all(|query| async move { session.client.model_list(&query).await }).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "no model yet: an experiment with `promote` publishes one".to_owned();
        }
        views::model::list(style, now(), &page.items)
    });
    Ok(Done::Well)
}

/// `KEY=VALUE`; without a value the tag is removed.
fn tag(text: &str) -> Result<(String, Option<String>), Fault> {
    let (key, value) = text.split_once('=').ok_or_else(|| {
        Fault::new(Code::BadRequest, format!("`{text}` is not a tag"))
            .hint("write `KEY=VALUE`, or `KEY=` to remove it")
    })?;
    let value = Some(value).filter(|value| !value.is_empty());
    Ok((key.to_owned(), value.map(str::to_owned)))
}

async fn delete(text: String, session: Session) -> Result<Done, Fault> {
    let client = &session.client;
    let is_number = |which: &str| which.parse::<u32>().is_ok();
    match text.split_once('@') {
        None => {
            let row = client.model_delete(&text, &key()).await?;
            let versions = plural(row.versions.len() as u64, "version");
            let told = |_| format!("`{text}` is deleted with {versions}");
            session.printer.data(&row, told);
        }
        Some((model, which)) if is_number(which) => {
            let row = client.version_delete(model, which, &key()).await?;
            session
                .printer
                .data(&row, |_| format!("`{text}` is deleted"));
        }
        Some((model, alias)) => {
            let row = client.alias_delete(model, alias, &key()).await?;
            let told = |_| {
                format!(
                    "the alias `{text}` is deleted; it pointed to {}",
                    row.number
                )
            };
            session.printer.data(&row, told);
        }
    }
    Ok(Done::Well)
}

async fn change(text: String, words: ChangeWords, session: Session) -> Result<Done, Fault> {
    let (model, which) = match text.split_once('@') {
        Some((model, which)) => (model, Some(which)),
        None => (text.as_str(), None),
    };
    let row = session.client.words_change(model, which, &words).await?;
    session.printer.data(&row, |style| {
        let mut lines = vec![style.bold(&text), row.description.clone()];
        lines.extend(row.tags.iter().map(|(key, value)| format!("{key}={value}")));
        lines.retain(|line| !line.is_empty());
        lines.join("\n")
    });
    Ok(Done::Well)
}

/// `pomona audit`.
pub async fn audit(args: AuditArgs, session: Session) -> Result<Done, Fault> {
    let query = AuditQuery {
        subject: args.model.map(|model| format!("model/{model}")),
        page_size: Some(args.limit),
        page_token: None,
    };
    let page = session.client.audit(&query).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "nothing was done to the registry yet".to_owned();
        }
        views::model::audit(style, &page.items)
    });
    Ok(Done::Well)
}

async fn show(text: String, as_of: Option<Timestamp>, session: Session) -> Result<Done, Fault> {
    if let Some((model, which)) = text.split_once('@') {
        let row = match as_of {
            Some(as_of) => session.client.version_at(model, which, as_of).await?,
            None => session.client.version_get(model, which).await?,
        };
        session
            .printer
            .data(&row, |style| views::model::version(style, &row));
    } else if as_of.is_some() {
        let fault = Fault::new(Code::BadRequest, "`--as-of` is asked of an alias");
        return Err(fault.hint(format!("`pomona model show {text}@champion --as-of …`")));
    } else {
        let row = session.client.model_get(&text).await?;
        session
            .printer
            .data(&row, |style| views::model::show(style, now(), &row));
    }
    Ok(Done::Well)
}

async fn register(
    model: String,
    trial: String,
    alias: Option<String>,
    session: Session,
) -> Result<Done, Fault> {
    name::check("model", &model)?;
    if let Some(alias) = &alias {
        name::check_alias("alias", alias)?;
    }
    let trial = session.client.trial_get(&trial).await?.id;
    let body = PublishVersion {
        trial,
        alias: alias.clone(),
    };
    let task = session
        .client
        .version_publish(&model, &body, &key())
        .await?;
    let result = task::finish(&session, task, &format!("publishing to `{model}`")).await?;
    let TaskResult::Published { .. } = result else {
        return Err(Fault::new(
            Code::Internal,
            "the publication answered something else",
        ));
    };
    let view = session.client.model_get(&model).await?;
    let made = view
        .versions
        .iter()
        .find(|version| version.trial == Some(trial));
    let number = made.map_or(0, |version| version.number);
    let row = session
        .client
        .version_get(&model, &number.to_string())
        .await?;
    session
        .printer
        .data(&row, |style| views::model::version(style, &row));
    match row.gates.iter().find(|gate| !gate.passed) {
        Some(gate) if alias.is_some() => {
            let message = format!(
                "`{model}@{number}` is published, but `{}` failed",
                gate.gate
            );
            Err(Fault::new(Code::GateFailed, message).hint("the alias stays where it is"))
        }
        Some(_) | None => Ok(Done::Well),
    }
}

async fn promote(
    model: String,
    alias: String,
    mut wanted: SetAlias,
    session: Session,
) -> Result<Done, Fault> {
    name::check_alias("alias", &alias)?;
    let view = session.client.model_get(&model).await?;
    // What was seen is what is replaced: a move by somebody else in between is refused.
    let seen = view.aliases.iter().find(|row| row.alias == alias);
    wanted.expected_revision = Some(seen.map_or(0, |row| row.revision));
    warn_of_gates(&view, wanted.version, &session);
    let row = session
        .client
        .alias_set(&model, &alias, &wanted, &key())
        .await?;
    Ok(told(&row, &session))
}

fn warn_of_gates(view: &ModelView, number: u32, session: &Session) {
    let version = view
        .versions
        .iter()
        .find(|version| version.number == number);
    if version.is_some_and(|version| !version.gates_passed) {
        let text = format!(
            "a gate of `{}@{number}` failed when it was published",
            view.name
        );
        session.printer.warn(&text);
    }
}

async fn rollback(
    model: String,
    alias: String,
    reason: Option<String>,
    session: Session,
) -> Result<Done, Fault> {
    let body = RollbackAlias { reason };
    let row = session
        .client
        .alias_rollback(&model, &alias, &body, &key())
        .await?;
    Ok(told(&row, &session))
}

fn told(row: &Alias, session: &Session) -> Done {
    session.printer.data(row, |style| {
        let alias = style.bold(&format!("{}@{}", row.model, row.alias));
        format!(
            "{alias} points to version {} (revision {})",
            row.number, row.revision
        )
    });
    Done::Well
}

async fn history(
    model: String,
    alias: Option<String>,
    as_of: Option<Timestamp>,
    session: Session,
) -> Result<Done, Fault> {
    let aliases = if let Some(alias) = alias {
        vec![alias]
    } else {
        let view = session.client.model_get(&model).await?;
        view.aliases.into_iter().map(|row| row.alias).collect()
    };
    let mut items: Vec<AliasMove> = Vec::new();
    for alias in &aliases {
        items.extend(session.client.alias_history(&model, alias, as_of).await?);
    }
    items.sort_by(|a, b| (a.at, &a.alias, a.revision).cmp(&(b.at, &b.alias, b.revision)));
    let page = Page {
        items,
        next_page_token: None,
    };
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return format!("no alias of `{model}` had moved");
        }
        views::model::history(style, &page.items)
    });
    Ok(Done::Well)
}
