//! Features of frozen blocks: what workers say they keep, and what they are told to remove.

use pomona_api::PROTOCOL;
use pomona_api::shard::{Key, Plan};
use pomona_api::v1::features::{
    FeatureBlob, FeatureShard, FoundFeatures, MAX_WANTED, UploadedFeature, WantFeatures,
};
use pomona_domain::dataset::Split;
use pomona_domain::view::View;
use pomona_domain::{Code, Digest, Fault, Timestamp, WorkerId};
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

#[tokio::test]
async fn who_is_waiting_for_work_is_told_at_once_what_to_evict() {
    let house = House::open().await;
    let mut machine = Machine::join(&house.client, 1, 1).await;
    let a = shard("a");
    says(&mut machine, Some(vec![a.clone()])).await;
    let begun = std::time::Instant::now();
    let evict = async {
        // The poll is under way when this is asked, or comes after it: both are told.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        house.client.feature_evict(a.digest).await.unwrap();
    };
    let (told, ()) = tokio::join!(machine.poll(5_000), evict);
    assert_eq!(told.evict, [a.digest]);
    let waited = begun.elapsed();
    assert!(waited.as_millis() < 4_000, "told after {waited:?}");
}

fn want(shards: &[Digest], wait_ms: u64) -> WantFeatures {
    WantFeatures {
        protocol: PROTOCOL,
        incarnation: 1,
        shards: shards.to_vec(),
        wait_ms,
    }
}

async fn wanted(house: &House, machine: &Machine, shards: &[Digest]) -> FoundFeatures {
    let body = want(shards, 0);
    let found = house.client.features_wanted(machine.id(), &body).await;
    found.expect("an answer")
}

/// What a machine is asked to upload.
async fn asked(machine: &mut Machine) -> Vec<Digest> {
    machine.poll(0).await.upload
}

fn blob_of(shard: Digest) -> FeatureBlob {
    let bytes = format!("the file of {shard}");
    FeatureBlob {
        shard,
        blob: Digest::of(bytes.as_bytes()),
        bytes: bytes.len() as u64,
    }
}

async fn tells(house: &House, machine: &Machine, uploaded: FeatureBlob) -> Result<(), Fault> {
    let body = UploadedFeature {
        protocol: PROTOCOL,
        incarnation: 1,
        uploaded,
    };
    let told = house.client.feature_uploaded(machine.id(), &body).await?;
    assert_eq!(told, uploaded);
    Ok(())
}

async fn uploads(house: &House, machine: &Machine, shard: Digest) -> FeatureBlob {
    let bytes = format!("the file of {shard}");
    house.client.blob_put_bytes(bytes).await.expect("an answer");
    tells(house, machine, blob_of(shard))
        .await
        .expect("an answer");
    blob_of(shard)
}

#[tokio::test]
async fn what_a_worker_misses_is_asked_of_who_keeps_it_until_it_is_there() {
    let mut house = House::open().await;
    let mut one = Machine::join(&house.client, 1, 1).await;
    let mut two = Machine::join(&house.client, 2, 1).await;
    let [a, b, c] = ["a", "b", "c"].map(shard);
    let names = [c.digest, b.digest, a.digest];
    assert_eq!(wanted(&house, &two, &names).await, FoundFeatures::default());
    says(&mut one, Some(vec![a.clone(), b.clone()])).await;
    // What nobody has is in neither list; a worker is not asked for its own.
    let found = wanted(&house, &two, &names).await;
    assert_eq!(
        (found.ready, found.coming),
        (vec![], vec![b.digest, a.digest])
    );
    assert_eq!(wanted(&house, &one, &names).await.coming, []);
    assert_eq!(wanted(&house, &two, &names).await.coming.len(), 2);
    // Nor is one asked for the sake of another processor, whose bits may be others.
    let strange = Machine::join(&house.client, 11, 1).await;
    assert_eq!(wanted(&house, &strange, &names).await.coming, []);
    for _ in 0..2 {
        // It stands there until it is done, what was wanted first before the rest.
        assert_eq!(asked(&mut one).await, [b.digest, a.digest]);
    }
    assert_eq!(asked(&mut two).await, []);

    let uploaded = uploads(&house, &one, b.digest).await;
    assert_eq!(
        wanted(&house, &strange, &names).await,
        FoundFeatures::default()
    );
    assert_eq!(asked(&mut one).await, [a.digest]);
    let found = wanted(&house, &two, &names).await;
    assert_eq!(
        (found.ready, found.coming),
        (vec![uploaded], vec![a.digest])
    );
    // What is gone from its disk is not asked for any more.
    says(&mut one, Some(vec![b.clone()])).await;
    assert_eq!(asked(&mut one).await, []);
    assert_eq!(wanted(&house, &two, &names).await.coming, []);

    // All of it is forgotten by a restart, and found out again.
    house.restart().await;
    one.meet(&house.client);
    two.meet(&house.client);
    assert_eq!(wanted(&house, &two, &names).await, FoundFeatures::default());
    says(&mut one, Some(vec![b.clone()])).await;
    assert_eq!(wanted(&house, &two, &names).await.coming, [b.digest]);
    assert_eq!(asked(&mut one).await, [b.digest]);
}

#[tokio::test]
async fn who_waits_for_work_is_told_at_once_and_who_wants_features_when_they_come() {
    let house = House::open().await;
    let mut one = Machine::join(&house.client, 1, 1).await;
    let two = Machine::join(&house.client, 2, 1).await;
    let a = shard("a");
    says(&mut one, Some(vec![a.clone()])).await;
    one.poll(0).await;
    let wants = want(&[a.digest], 4000);
    let (told, found) = tokio::join!(
        async {
            let told = one.poll(4000).await.upload;
            uploads(&house, &one, a.digest).await;
            told
        },
        house.client.features_wanted(two.id(), &wants),
    );
    assert_eq!(told, [a.digest]);
    assert_eq!(found.unwrap().ready, [blob_of(a.digest)]);
}

#[tokio::test]
async fn features_are_between_workers_that_are_known() {
    let house = House::open().await;
    let mut one = Machine::join(&house.client, 1, 1).await;
    let a = shard("a");
    let codes = async |id: WorkerId, want: WantFeatures| {
        let refused = house.client.features_wanted(id, &want).await;
        refused.unwrap_err().code
    };
    let stranger = WorkerId(77);
    assert_eq!(
        codes(stranger, want(&[a.digest], 0)).await,
        Code::UnknownWorker
    );
    let mut other = want(&[a.digest], 0);
    other.incarnation = 2;
    assert_eq!(codes(one.id(), other.clone()).await, Code::UnknownWorker);
    other.protocol = 999;
    assert_eq!(codes(one.id(), other).await, Code::VersionMismatch);
    let many = want(&vec![a.digest; MAX_WANTED + 1], 0);
    assert_eq!(codes(one.id(), many).await, Code::TooLarge);
    // Nobody tells of what is not in the store, or not kept by who tells.
    says(&mut one, Some(vec![])).await;
    let refused = tells(&house, &one, blob_of(a.digest)).await.unwrap_err();
    assert_eq!(refused.code, Code::BlobMissing);
    let bytes = format!("the file of {}", a.digest);
    house.client.blob_put_bytes(bytes).await.unwrap();
    let refused = tells(&house, &one, blob_of(a.digest)).await.unwrap_err();
    assert_eq!(refused.code, Code::NotFound);
    // Nor of other bytes than there are.
    says(&mut one, Some(vec![a.clone()])).await;
    let mut longer = blob_of(a.digest);
    longer.bytes += 1;
    let refused = tells(&house, &one, longer).await.unwrap_err();
    assert_eq!(refused.code, Code::BadRequest);
}
