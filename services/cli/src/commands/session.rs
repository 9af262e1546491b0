//! What commands work with: a printer, a client, and a few habits they share.

use pomona_api::client::Client;
use pomona_api::v1::experiments::{TrialOrder, TrialsQuery};
use pomona_api::v1::{MAX_PAGE_SIZE, Page, PageQuery};
use pomona_domain::trial::Trial;
use pomona_domain::{Code, Digest, Fault};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::path::Path;

use crate::args::GlobalArgs;
use crate::human;
use crate::printer::Printer;

/// A list is read to its end, but not over this many pages.
const MAX_PAGES: usize = 100;

/// What a command works with.
#[derive(Debug, Clone)]
pub struct Session {
    /// Prints.
    pub printer: Printer,
    /// Asks.
    pub client: Client,
}

impl Session {
    /// For the arguments that every command takes.
    pub fn new(global: &GlobalArgs, printer: &Printer) -> Result<Self, Fault> {
        Ok(Self {
            printer: printer.clone(),
            client: Client::new(&global.server)?.used_by(&who()),
        })
    }

    /// Uploads a file under its digest, and says so while it takes time.
    pub async fn upload(&self, digest: Digest, path: &Path, size: u64) -> Result<(), Fault> {
        let spinner = self
            .printer
            .spinner(&format!("uploading {}", human::bytes(size)));
        let sent = self.client.blob_put(digest, path).await;
        spinner.finish_and_clear();
        sent
    }
}

/// Who uses this machine, as the audit of the registry keeps it.
fn who() -> String {
    let user = ["USER", "LOGNAME", "USERNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok());
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname");
    let host = host.ok().or_else(|| std::env::var("HOSTNAME").ok());
    let visible = |text: Option<String>| -> String {
        let text = text.unwrap_or_default();
        let kept = text
            .chars()
            .filter(char::is_ascii_graphic)
            .collect::<String>();
        if kept.is_empty() {
            "unknown".to_owned()
        } else {
            kept
        }
    };
    format!("{}@{}", visible(user), visible(host))
}

/// Every page of a list as one.
pub async fn all<T, F: Future<Output = Result<Page<T>, Fault>>>(
    mut ask: impl FnMut(PageQuery) -> F,
) -> Result<Page<T>, Fault> {
    let mut items = Vec::new();
    let mut page_token = None;
    for _ in 0..MAX_PAGES {
        let page = ask(PageQuery {
            page_size: Some(MAX_PAGE_SIZE),
            page_token,
        })
        .await?;
        items.extend(page.items);
        page_token = page.next_page_token;
        if page_token.is_none() {
            break;
        }
    }
    Ok(Page {
        items,
        next_page_token: page_token,
    })
}

/// Every trial of an experiment.
pub async fn trials(
    session: &Session,
    experiment: &str,
    order_by: TrialOrder,
) -> Result<Vec<Trial>, Fault> {
    let ask = |page: PageQuery| async move {
        let query = TrialsQuery {
            order_by,
            page_size: page.page_size,
            page_token: page.page_token,
        };
        session.client.trial_list(experiment, &query).await
    };
    Ok(all(ask).await?.items)
}

/// The first page, as large as it may be.
pub fn first_page() -> PageQuery {
    PageQuery {
        page_size: Some(MAX_PAGE_SIZE),
        page_token: None,
    }
}

/// A key of its own for a mutation, so that it is safe to repeat.
pub fn key() -> String {
    // Two hashers with keys that the system drew: no more is needed to be different.
    let draw = || RandomState::new().build_hasher().finish();
    format!("cli-{}-{:016x}{:016x}", std::process::id(), draw(), draw())
}

/// `NAME@ALIAS` or `NAME@V`, split.
pub fn version_reference(text: &str) -> Result<(&str, &str), Fault> {
    match text.split_once('@') {
        Some((name, which)) if !name.is_empty() && !which.is_empty() => Ok((name, which)),
        Some(_) | None => Err(Fault::new(
            Code::BadRequest,
            format!("`{text}` does not say which version of a model"),
        )
        .hint("write `NAME@ALIAS` or `NAME@V`, such as `flowers@champion` or `flowers@3`")),
    }
}

/// Whether the same question may be answered a moment later.
pub fn is_passing(code: Code) -> bool {
    matches!(
        code,
        Code::Unreachable | Code::NotReady | Code::Busy | Code::StoreDown | Code::ObjectsDown
    )
}

/// Resolves at Ctrl-C.
pub async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Without a handler the signal ends the process by itself.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        assert_ne!(key(), key());
    }

    #[test]
    fn a_version_is_named_by_alias_or_number() {
        assert_eq!(
            version_reference("tux@champion").unwrap(),
            ("tux", "champion")
        );
        for text in ["tux", "tux@", "@3", "@"] {
            assert_eq!(
                version_reference(text).unwrap_err().code,
                Code::BadRequest,
                "{text}"
            );
        }
    }
}
