//! The page of errors, one section for each code.

use crate::error::Code;

/// `errors.md`, as it is.
const PAGE: &str = include_str!("../errors.md");

/// The section of a code, its heading included; without the blank lines around it.
pub fn explain(code: Code) -> &'static str {
    let heading = |section: &&str| section.starts_with(code.as_str());
    sections().find(heading).unwrap_or_default()
}

/// The sections without the `## ` of their headings.
fn sections() -> impl Iterator<Item = &'static str> {
    PAGE.split("\n## ").skip(1).map(str::trim)
}

#[cfg(test)]
mod tests;
