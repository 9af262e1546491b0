//! Lists are read page by page; a token says where the next page begins.

use crate::StoreError;

/// Items of a page when nobody says how many.
pub const DEFAULT_PAGE: u32 = 100;
/// Most items of a page.
pub const MAX_PAGE: u32 = 1000;

/// Which page is wanted. The default is the first one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageRequest {
    /// How many items ([`DEFAULT_PAGE`] when absent, at most [`MAX_PAGE`]).
    pub limit: Option<u32>,
    /// The token of the page before.
    pub token: Option<String>,
}

/// Some items of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Ask for this to go on; absent on the last page.
    pub next_page_token: Option<String>,
}

impl PageRequest {
    /// The first page with at most `limit` items.
    pub fn first(limit: u32) -> Self {
        Self {
            limit: Some(limit),
            token: None,
        }
    }

    /// The page that follows.
    #[must_use]
    pub fn after(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    pub(crate) fn limit(&self) -> Result<u64, StoreError> {
        let limit = self.limit.unwrap_or(DEFAULT_PAGE);
        if limit > MAX_PAGE {
            return Err(StoreError::TooLarge {
                what: "the page",
                limit: u64::from(MAX_PAGE),
            });
        }
        Ok(u64::from(limit.max(1)))
    }

    /// The token as a `T`.
    pub(crate) fn token<T: std::str::FromStr>(&self) -> Result<Option<T>, StoreError> {
        self.token
            .as_deref()
            .map(|token| token.parse().map_err(|_| bad_token(token)))
            .transpose()
    }

    /// The token as a step: 0 or more, and no more than a column holds.
    pub(crate) fn token_step(&self) -> Result<Option<i64>, StoreError> {
        match self.token::<i64>()? {
            Some(step) if step < 0 => Err(bad_token(&step.to_string())),
            step => Ok(step),
        }
    }

    /// The token as a number and a text (`17.name`).
    pub(crate) fn token_pair(&self) -> Result<Option<(i64, String)>, StoreError> {
        self.token
            .as_deref()
            .map(|token| {
                token
                    .split_once('.')
                    .and_then(|(number, text)| Some((number.parse().ok()?, text.to_owned())))
                    .ok_or_else(|| bad_token(token))
            })
            .transpose()
    }
}

fn bad_token(token: &str) -> StoreError {
    StoreError::BadToken {
        token: token.to_owned(),
    }
}

impl<T> Page<T> {
    /// A page of at most `limit` items out of `limit + 1` that were read.
    pub(crate) fn cut(mut items: Vec<T>, limit: u64, token: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_page_token = if more { items.last().map(token) } else { None };
        Self {
            items,
            next_page_token,
        }
    }
}
