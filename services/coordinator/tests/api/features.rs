//! Features of frozen blocks: what workers say they keep, and what they are told to remove.

use pomona_api::shard::{Key, Plan};
use pomona_api::v1::features::FeatureShard;
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Code, Digest, Timestamp};
use std::collections::BTreeMap;

use crate::harness::House;
use crate::worker::Machine;

fn shard(name: &str) -> FeatureShard {
    let plan = Plan {
        key: Key {
            prefix_version: 1,
            arch: name.to_owned(),
            cut: 2,
            block: "layer1".to_owned(),
            weights: Digest::of(b"weights"),
            mean: [0.0; 3],
            scale: [1.0; 3],
            dataset: Digest::of(b"manifest"),
            split: Split::Val,
            view: View::AS_IS,
            from: 0,
            to: 10,
            batch: 32,
            environment: BTreeMap::new(),
        },
        rows: 10,
        shape: vec![512],
    };
    FeatureShard {
        digest: plan.key.digest().expect("a digest"),
        plan,
        bytes: 20_480,
        used_at: Timestamp(1_000),
    }
}

/// A poll that says what is kept; gives what should go and whether it should be said again.
async fn says(machine: &mut Machine, shards: Option<Vec<FeatureShard>>) -> (Vec<Digest>, bool) {
    let mut body = machine.body(0);
    body.features = shards;
    let desired = machine.send(&body).await.expect("an answer");
    (desired.evict, desired.want_features)
}

async fn kept(house: &House) -> Vec<Digest> {
    let page = house.client.feature_list().await.expect("a list");
    page.items
        .into_iter()
        .map(|copy| copy.shard.digest)
        .collect()
}

#[tokio::test]
async fn what_workers_keep_is_listed_and_evicted_wherever_it_is() {
    let house = House::open().await;
    let mut one = Machine::join(&house.client, 1, 1).await;
    let mut two = Machine::join(&house.client, 2, 1).await;
    assert_eq!(kept(&house).await, []);
    assert_eq!(
        says(&mut one, None).await,
        (vec![], true),
        "it has yet to say"
    );
    let (a, b) = (shard("a"), shard("b"));
    assert_eq!(
        says(&mut one, Some(vec![a.clone(), b.clone()])).await,
        (vec![], false)
    );
    assert_eq!(says(&mut two, Some(vec![a.clone()])).await, (vec![], false));
    assert_eq!(kept(&house).await, [a.digest, b.digest, a.digest]);

    let unknown = house.client.feature_evict(Digest::of(b"unknown")).await;
    assert_eq!(unknown.unwrap_err().code, Code::NotFound);
    let copies = house.client.feature_evict(a.digest).await.unwrap();
    assert_eq!(copies.items.len(), 2);
    assert_eq!(says(&mut one, None).await.0, [a.digest]);
    assert_eq!(says(&mut two, None).await.0, [a.digest]);
    // They are told once; what they keep all the same stays listed.
    assert_eq!(says(&mut one, Some(vec![b.clone()])).await, (vec![], false));
    assert_eq!(kept(&house).await.len(), 2);
    says(&mut two, Some(vec![])).await;
    assert_eq!(kept(&house).await, [b.digest]);
}
