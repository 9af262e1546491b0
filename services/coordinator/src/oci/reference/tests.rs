use super::*;

fn check(text: &str, wanted: &str) {
    let found = match Reference::read(text) {
        Ok(Reference::Tag(Which::Number(number), rendering)) => format!("{number} {rendering:?}"),
        Ok(Reference::Tag(Which::Alias(alias), rendering)) => format!("@{alias} {rendering:?}"),
        Ok(Reference::Digest(digest)) => digest.to_string(),
        Err(refused) => refused
            .to_string()
            .split(':')
            .next()
            .unwrap_or_default()
            .to_owned(),
    };
    assert_eq!(found, wanted, "{text}");
}

#[test]
fn a_tag_is_read_by_its_form_alone() {
    check("v7", "7 Files");
    check("v7-image", "7 Image");
    check("champion", "@champion Files");
    check("champion-image", "@champion Image");
    check("x-image-image", "@x-image Image");
    check("v07", "@v07 Files");
    check("v0", "@v0 Files");
    check("v", "@v Files");
    check("7", "@7 Files");
    check("v4294967296", "@v4294967296 Files");
    let digest = format!("sha256:{}", "0a".repeat(32));
    check(&digest, &digest);
    check("sha256:0A", "DIGEST_INVALID");
    check("sha512:00", "DIGEST_INVALID");
}

#[test]
fn every_tag_that_is_listed_names_what_it_was_made_of() {
    let aliases = ["champion", "v2", "x-image"].map(str::to_owned);
    let listed = tags(&[1, 12], &aliases);
    assert_eq!(
        listed,
        [
            "champion",
            "champion-image",
            "v1",
            "v1-image",
            "v12",
            "v12-image",
            "x-image-image"
        ]
    );
}
