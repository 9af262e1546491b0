//! Names that people give: experiments, backbones, data sets, models, aliases, projects.

use crate::{Code, Fault};

/// The longest name.
pub const MAX_NAME: usize = 64;

/// Refuses a name that is not 1 to 64 ASCII letters, digits, `-`, `_` and `.`, the first a letter
/// or digit. `what` says what it names, for the message.
pub fn check(what: &str, name: &str) -> Result<(), Fault> {
    let fits = (1..=MAX_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if fits {
        return Ok(());
    }
    let shown: String = name
        .chars()
        .take(MAX_NAME)
        .filter(|c| !c.is_control())
        .collect();
    Err(Fault::new(
        Code::BadName,
        format!("{what}: `{shown}` is not a name"),
    )
    .hint(
        "a name has 1 to 64 ASCII letters, digits, `-`, `_` or `.`, and begins with a letter or digit",
    ))
}

/// The same for an alias, which must also not read as a version number.
pub fn check_alias(what: &str, alias: &str) -> Result<(), Fault> {
    check(what, alias)?;
    if alias.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Fault::new(
            Code::BadName,
            format!("{what}: `{alias}` reads as a version number"),
        )
        .hint("an alias has a letter in it, such as `champion`"));
    }
    Ok(())
}

/// Splits `NAME` or `NAME@V` of a data set and checks both.
pub fn dataset_reference(what: &str, text: &str) -> Result<(String, Option<u32>), Fault> {
    let Some((name, version)) = text.split_once('@') else {
        check(what, text)?;
        return Ok((text.to_owned(), None));
    };
    check(what, name)?;
    match version.parse::<u32>() {
        Ok(number) if number > 0 && !version.starts_with('+') => {
            Ok((name.to_owned(), Some(number)))
        }
        Ok(_) | Err(_) => Err(Fault::new(
            Code::BadName,
            format!("{what}: `{version}` is not a version of a data set"),
        )
        .hint("versions are numbered from 1: write `NAME@1`, or `NAME` for the newest")),
    }
}
