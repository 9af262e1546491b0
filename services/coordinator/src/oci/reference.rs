//! What a tag or digest in a path names. A tag is read by its form alone, whatever aliases a model
//! has, so that nobody changes what a tag means by adding an alias:
//!
//! 1. `…-image`: the image of what the rest names; else the files.
//! 2. `v7`: version 7, and never an alias.
//! 3. Anything else is an alias.
//!
//! So an alias that reads as `v7` is not a tag, and one that ends in `-image` is a tag of an image
//! alone (`x-image-image`).

use pomona_domain::Digest;

use super::refusal::Refused;

/// Ends the tag of an image.
const IMAGE: &str = "-image";

/// In which form a version is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rendering {
    /// Each file a layer.
    Files,
    /// An ordinary image.
    Image,
}

/// Which version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    Number(u32),
    Alias(String),
}

/// What a manifest is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    Tag(Which, Rendering),
    Digest(Digest),
}

impl Reference {
    pub fn read(text: &str) -> Result<Self, Refused> {
        if text.contains(':') {
            return digest(text).map(Self::Digest);
        }
        if text.contains('\0') {
            return Err(Refused::no_manifest("no tag has a NUL in it"));
        }
        let (name, rendering) = match text.strip_suffix(IMAGE) {
            Some(name) => (name, Rendering::Image),
            None => (text, Rendering::Files),
        };
        let which = number(name).map_or_else(|| Which::Alias(name.to_owned()), Which::Number);
        Ok(Self::Tag(which, rendering))
    }
}

/// Refuses the name of a repository that no database would even look for.
pub fn name(model: &str) -> Result<(), Refused> {
    if model.contains('\0') {
        return Err(Refused::no_model(&model.escape_default().to_string()));
    }
    Ok(())
}

/// A digest in a path.
pub fn digest(text: &str) -> Result<Digest, Refused> {
    text.parse()
        .map_err(|error| Refused::bad_digest(&format!("{error}")))
}

/// The number of `v7`; none is written with a zero before it.
fn number(name: &str) -> Option<u32> {
    let digits = name.strip_prefix('v')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| is_number)
}

/// The tags of a model, in order.
pub fn tags(numbers: &[u32], aliases: &[String]) -> Vec<String> {
    let versions = numbers.iter().map(|number| format!("v{number}"));
    let mut tags = Vec::new();
    for name in versions.chain(
        aliases
            .iter()
            .filter(|name| number(name).is_none())
            .cloned(),
    ) {
        tags.push(format!("{name}{IMAGE}"));
        if !name.ends_with(IMAGE) {
            tags.push(name);
        }
    }
    tags.sort_unstable();
    tags
}

#[cfg(test)]
mod tests;
