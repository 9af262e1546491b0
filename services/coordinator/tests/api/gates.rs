//! Gates over the API: comparisons, approvals, refusals, and what is kept of them.

use pomona_api::v1::PageQuery;
use pomona_api::v1::models::{Approve, PublishVersion, SetAlias};
use pomona_domain::{Code, Fault};

use crate::harness::House;
use crate::worker::{Machine, published_with, trial_of};
use crate::{furnished, submit};

const GATES: &str = "
name: flowers
backbone: lite
dataset: flowers
train: {epochs: 2, batch_size: 4, learning_rate: 0.001}
search: {metric: val/accuracy}
promote:
  model: flowers
  alias: champion
  gates:
    - {metric: test/recall, every_class_at_least: 0.5}
    - {better_than: champion, metric: test/accuracy}
    - {no_worse_than: champion, metric: test/macro_f1, margin: 0.05}
    - {approvals: {deployer: 1}}
";

/// Makes a version with so many mistakes among forty.
async fn publishes(house: &House, machine: &mut Machine, key: &str, wrong: u32) {
    submit(house, GATES, key).await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let lease = machine.has(1).await.remove(0);
    let result = published_with(&house.client, wrong).await;
    machine.answer(&lease, result).await;
}

async fn approves(house: &House, number: &str, role: &str, key: &str) -> Result<String, Fault> {
    let body = Approve {
        role: role.to_owned(),
        actor: "ann".to_owned(),
        reason: Some("fifty pictures were fine".to_owned()),
    };
    let kept = (house.client).version_approve("flowers", number, &body, key);
    kept.await.map(|row| row.actor)
}

async fn promotes(house: &House, number: u32, key: &str) -> Result<u32, Fault> {
    let wanted = SetAlias {
        version: number,
        expected_revision: None,
        reason: None,
    };
    let moved = house.client.alias_set("flowers", "champion", &wanted, key);
    moved.await.map(|alias| alias.number)
}

#[tokio::test]
async fn a_version_is_promoted_once_somebody_approved_and_not_before() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    publishes(&house, &mut machine, "one", 12).await;
    let fault = promotes(&house, 1, "too early").await.unwrap_err();
    assert_eq!(
        (fault.code, fault.code.http_status()),
        (Code::GateFailed, 403)
    );
    assert!(fault.message.contains("1 approved as deployer"), "{fault}");

    let why = client.explain_model("flowers", "champion").await.unwrap();
    assert!(why.now.contains("does not exist yet"), "{why:?}");
    assert_eq!(
        why.reasons.len(),
        2,
        "the publication, and the request: {why:?}"
    );

    let bad = approves(&house, "1", "boss", "k0").await;
    assert_eq!(bad.unwrap_err().code, Code::BadRequest);
    let none = approves(&house, "9", "deployer", "k1").await;
    assert_eq!(none.unwrap_err().code, Code::NotFound);
    let kept = approves(&house, "1", "deployer", "k2").await;
    assert_eq!(kept.unwrap(), "ann");
    assert_eq!(client.approval_list("flowers", "1").await.unwrap().len(), 1);
    assert_eq!(promotes(&house, 1, "now").await, Ok(1));

    let query = PageQuery::default();
    let decisions = client
        .decision_list("flowers", "champion", &query)
        .await
        .unwrap();
    let verdicts: Vec<bool> = decisions.items.iter().map(|row| row.allowed).collect();
    assert_eq!(
        verdicts,
        [true, false, false],
        "publication, too early, now"
    );
    let places: Vec<u32> = decisions
        .items
        .iter()
        .map(|row| row.test_use.unwrap().place)
        .collect();
    assert_eq!(places, [1, 1, 1], "the same version is the same question");
    let why = client.explain_model("flowers", "champion").await.unwrap();
    assert!(why.now.contains("approved by ann"), "{why:?}");
    assert!(why.now.contains("there is no champion yet"), "{why:?}");
    let told: Vec<&str> = why
        .reasons
        .iter()
        .map(|reason| reason.text.as_str())
        .collect();
    assert!(told[0].starts_with("version 1 was refused"), "{told:?}");
}

#[tokio::test]
async fn a_challenger_is_held_against_the_champion_on_its_samples() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    publishes(&house, &mut machine, "one", 12).await;
    approves(&house, "1", "deployer", "a1").await.unwrap();
    assert_eq!(promotes(&house, 1, "p1").await, Ok(1));

    // Two of two samples prove nothing; what would have is said.
    publishes(&house, &mut machine, "two", 10).await;
    approves(&house, "2", "deployer", "a2").await.unwrap();
    let fault = promotes(&house, 2, "p2").await.unwrap_err();
    assert_eq!(fault.code, Code::GateFailed);
    assert!(fault.message.contains("it needs 6 of 6"), "{fault}");
    assert_eq!(
        client
            .version_get("flowers", "champion")
            .await
            .unwrap()
            .number,
        1
    );

    publishes(&house, &mut machine, "three", 0).await;
    approves(&house, "3", "deployer", "a3").await.unwrap();
    assert_eq!(promotes(&house, 3, "p3").await, Ok(3));
    let query = PageQuery::default();
    let decisions = client
        .decision_list("flowers", "champion", &query)
        .await
        .unwrap();
    let newest = &decisions.items[0];
    let compared: Vec<_> = newest
        .gates
        .iter()
        .filter_map(|gate| gate.compared.as_ref())
        .collect();
    assert_eq!(compared.len(), 2);
    assert_eq!(
        (compared[0].wins, compared[0].losses, compared[0].uses),
        (12, 0, 3)
    );
    assert!(compared[0].p_value.unwrap() < 0.001, "{compared:?}");
    assert!(compared[1].bound.unwrap() > 0.0, "{compared:?}");
    assert!((compared[0].corrected - (1.0 - 0.05 / 3.0)).abs() < 1e-12);

    // Back to where it has been needs no gate, and says so.
    assert_eq!(promotes(&house, 1, "back").await, Ok(1));
    let moves = client
        .alias_history("flowers", "champion", None)
        .await
        .unwrap();
    let last = &moves.last().unwrap().reason;
    assert!(last.contains("it pointed there before"), "{last}");
    let page = client.metrics().await.unwrap();
    let refused = "pomona_promotions_total{decision=\"refused\",gate=\"better_than\"}";
    assert!(page.contains(refused), "{page}");
}

#[tokio::test]
async fn a_trial_whose_file_has_no_gates_is_held_by_those_of_the_alias() {
    let (house, mut machine) = furnished(1).await;
    let client = house.client.clone();
    publishes(&house, &mut machine, "one", 12).await;
    approves(&house, "1", "deployer", "a1").await.unwrap();
    assert_eq!(promotes(&house, 1, "p1").await, Ok(1));

    let (plain, _) = GATES.split_once("promote:").unwrap();
    submit(&house, plain, "plain").await;
    let lease = machine.has(1).await.remove(0);
    machine.train(&lease, 0.6, 1.0).await;
    let body = PublishVersion {
        trial: trial_of(&lease),
        alias: Some("champion".to_owned()),
    };
    let task = client.version_publish("flowers", &body, "by hand").await;
    task.unwrap();
    let lease = machine.has(1).await.remove(0);
    let result = published_with(&house.client, 0).await;
    machine.answer(&lease, result).await;
    let version = client.version_get("flowers", "2").await.unwrap();
    let failed: Vec<&str> = (version.gates.iter())
        .filter(|gate| !gate.passed)
        .map(|gate| gate.gate.as_str())
        .collect();
    assert_eq!(
        failed,
        ["1 approved as deployer"],
        "better, but not approved"
    );
    let champion = client.version_get("flowers", "champion").await.unwrap();
    assert_eq!(champion.number, 1);
}
