//! Digests of versions as images: found by model and digest, once, and only through a version that
//! is there.

use pomona_domain::{Change, Digest};
use pomona_store::ImagePart;

use crate::harness::{Home, for_each_backend};
use crate::rows::{at, of_version, version};

for_each_backend!(
    a_digest_is_found_in_its_model_alone,
    what_is_not_known_yet_is_listed_newest_first,
    digests_that_are_kept_twice_are_kept_once,
);

async fn a_digest_is_found_in_its_model_alone(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let rows = [
        version("flowers", 1, blob),
        version("flowers", 2, blob),
        version("trees", 1, blob),
    ];
    leader
        .commit(&rows.iter().map(of_version).collect::<Vec<Change>>())
        .await;
    let manifest = Digest::of(b"manifest of flowers@2");
    let store = &leader.store;
    for row in &rows[..2] {
        store
            .image_put(row.id, &[(ImagePart::File, blob)])
            .await
            .unwrap();
    }
    store
        .image_put(rows[1].id, &[(ImagePart::Manifest, manifest)])
        .await
        .unwrap();
    let found = store.image_find("flowers", manifest).await.unwrap();
    assert_eq!(found, Some((ImagePart::Manifest, rows[1].clone())));
    let found = store.image_find("flowers", blob).await.unwrap();
    assert_eq!(
        found,
        Some((ImagePart::File, rows[0].clone())),
        "the oldest that needs it"
    );
    for (model, digest) in [
        ("trees", manifest),
        ("trees", blob),
        ("oaks", blob),
        ("flowers", Digest::of(b"x")),
    ] {
        assert_eq!(
            store.image_find(model, digest).await.unwrap(),
            None,
            "{model}"
        );
    }
    let part = store
        .image_part(rows[1].id, ImagePart::Manifest)
        .await
        .unwrap();
    assert_eq!(part, Some(manifest));
    assert_eq!(
        store
            .image_part(rows[0].id, ImagePart::Manifest)
            .await
            .unwrap(),
        None
    );
    assert_eq!(store.version_numbers("flowers").await.unwrap(), [1, 2]);
    assert_eq!(store.version_numbers("oaks").await.unwrap(), [0; 0]);
}

async fn what_is_not_known_yet_is_listed_newest_first(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let rows = [
        version("flowers", 1, blob),
        version("flowers", 2, blob),
        version("trees", 1, blob),
    ];
    leader
        .commit(&rows.iter().map(of_version).collect::<Vec<Change>>())
        .await;
    let store = &leader.store;
    let missing = async |model: Option<&str>, part| {
        let rows = store.image_missing(model, part, 10).await.unwrap();
        let mut ids: Vec<_> = rows.into_iter().map(|row| row.id).collect();
        ids.sort();
        ids
    };
    let mut all: Vec<_> = rows.iter().map(|row| row.id).collect();
    all.sort();
    assert_eq!(missing(None, ImagePart::Layer).await, all);
    store
        .image_put(rows[0].id, &[(ImagePart::Layer, blob)])
        .await
        .unwrap();
    assert_eq!(
        missing(Some("flowers"), ImagePart::Layer).await,
        [rows[1].id]
    );
    assert_eq!(
        missing(Some("flowers"), ImagePart::Manifest).await.len(),
        2,
        "another part"
    );
    assert_eq!(
        store
            .image_missing(None, ImagePart::Layer, 1)
            .await
            .unwrap()
            .len(),
        1
    );
}

async fn digests_that_are_kept_twice_are_kept_once(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let row = version("flowers", 1, blob);
    leader.commit(&[of_version(&row)]).await;
    let parts = [
        (ImagePart::File, blob),
        (ImagePart::File, blob),
        (ImagePart::Config, blob),
    ];
    for _ in 0..2 {
        leader.store.image_put(row.id, &parts).await.unwrap();
    }
    let raw = home.raw().await;
    assert_eq!(
        crate::harness::number(&raw, "SELECT count(*) FROM image_parts").await,
        2
    );
}
