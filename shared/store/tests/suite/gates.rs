//! What gates leave behind: outcomes, uses of test splits, approvals, decisions.

use pomona_domain::gate::{
    Approval, GateFact, Judgement, Role, TestOutcomes, TestUse, Usage, VersionOutcomes,
};
use pomona_domain::{Change, Code, Digest};
use pomona_store::PageRequest;

use crate::harness::{Home, for_each_backend};
use crate::rows::{alias_move, at, of_version, version};

for_each_backend!(
    what_a_version_said_of_each_sample_is_kept_once,
    uses_of_a_split_have_places_that_nobody_shares,
    approvals_are_kept_in_order_and_by_version,
    decisions_are_paged_newest_first,
    an_alias_remembers_where_it_has_been,
);

fn outcomes() -> TestOutcomes {
    TestOutcomes {
        split: Digest::of(b"split"),
        classes: vec!["Ä".to_owned(), "b".to_owned()],
        labels: vec![0, 1, 1],
        predicted: vec![0, 0, 1],
        confidence: vec![0.1 + 0.2, 0.9, 1.0],
        truth: vec![0.3, f32::MIN_POSITIVE, 1.0],
    }
}

fn said(number: u32) -> Change {
    Change::Gates(GateFact::Outcomes(Box::new(VersionOutcomes {
        model: "flowers".to_owned(),
        number,
        outcomes: outcomes(),
    })))
}

async fn what_a_version_said_of_each_sample_is_kept_once(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    leader
        .commit(&[said(1), of_version(&version("flowers", 1, blob))])
        .await;
    let read = leader.store.outcomes_get("flowers", 1).await.unwrap();
    assert_eq!(read, Some(outcomes()));
    assert_eq!(leader.store.outcomes_get("flowers", 2).await.unwrap(), None);
    assert_eq!(leader.refused(&[said(1)]).await, Code::Conflict);
}

/// A use of a split.
pub fn usage(split: &str, place: u32, champion: Option<u32>) -> TestUse {
    TestUse {
        split: Digest::of(split.as_bytes()),
        place,
        model: "flowers".to_owned(),
        number: place,
        champion,
        at: at(i64::from(place)),
    }
}

async fn uses_of_a_split_have_places_that_nobody_shares(home: Home) {
    let mut leader = home.lead().await;
    let mut all = vec![
        usage("a", 1, None),
        usage("a", 2, Some(1)),
        usage("b", 1, None),
    ];
    let changes = all.iter().rev().cloned();
    let changes: Vec<Change> = changes
        .map(|row| Change::Gates(GateFact::Used(row)))
        .collect();
    leader.commit(&changes).await;
    // A decision that did not know of the second use would take its place.
    let late = Change::Gates(GateFact::Used(usage("a", 2, Some(7))));
    assert_eq!(leader.refused(&[late]).await, Code::Conflict);
    all.sort_by_key(|row| (row.split, row.place));
    assert_eq!(leader.store.load().await.unwrap().test_uses, all);
}

async fn approvals_are_kept_in_order_and_by_version(home: Home) {
    let mut leader = home.lead().await;
    let approval = |number, actor: &str| Approval {
        model: "flowers".to_owned(),
        number,
        role: Role::Deployer,
        actor: actor.to_owned(),
        at: at(5),
        reason: "it `works`".to_owned(),
    };
    let rows = [approval(1, "ann"), approval(2, "bob"), approval(1, "ann")];
    for row in &rows {
        let change = Change::Gates(GateFact::Approved(row.clone()));
        leader.commit(&[change]).await;
    }
    let read = leader.store.approval_list("flowers", 1).await.unwrap();
    assert_eq!(read, [rows[0].clone(), rows[2].clone()]);
    assert!(
        leader
            .store
            .approval_list("trees", 1)
            .await
            .unwrap()
            .is_empty()
    );
}

fn judgement(number: u32, alias: Option<&str>, allowed: bool) -> Judgement {
    Judgement {
        model: "flowers".to_owned(),
        number,
        alias: alias.map(str::to_owned),
        at: at(i64::from(number)),
        allowed,
        champion: Some(1),
        policy: None,
        gates: version("flowers", 1, Digest::of(b"x")).gates,
        test_use: Some(Usage {
            split: Digest::of(b"split"),
            place: 3,
            most: 20,
        }),
        text: "1 gate passed".to_owned(),
    }
}

async fn decisions_are_paged_newest_first(home: Home) {
    let mut leader = home.lead().await;
    let rows = [
        judgement(1, Some("champion"), true),
        judgement(2, None, true),
        judgement(3, Some("champion"), false),
        judgement(4, Some("other"), true),
        judgement(5, Some("champion"), true),
    ];
    let judged = |row: &Judgement| Change::Gates(GateFact::Judged(Box::new(row.clone())));
    leader
        .commit(&rows.iter().map(judged).collect::<Vec<_>>())
        .await;
    let allowed = leader.store.judgement_allowed("flowers", "champion").await;
    assert_eq!(allowed.unwrap(), Some(rows[4].clone()));
    let other = leader.store.judgement_allowed("trees", "champion").await;
    assert_eq!(other.unwrap(), None);
    let mut page = PageRequest::first(2);
    let first = leader.store.judgement_list("flowers", "champion", &page);
    let first = first.await.unwrap();
    assert_eq!(first.items, [rows[4].clone(), rows[2].clone()]);
    page.token = first.next_page_token;
    let rest = leader.store.judgement_list("flowers", "champion", &page);
    let rest = rest.await.unwrap();
    assert_eq!(
        (rest.items, rest.next_page_token),
        (vec![rows[0].clone()], None)
    );
}

async fn an_alias_remembers_where_it_has_been(home: Home) {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let mut changes: Vec<Change> = (1..=3)
        .map(|number| of_version(&version("flowers", number, blob)))
        .collect();
    changes.push(Change::AliasMoved(alias_move("flowers", 1, None, 1)));
    changes.push(Change::AliasMoved(alias_move("flowers", 2, Some(1), 2)));
    leader.commit(&changes).await;
    for (alias, number, been) in [
        ("champion", 1, true),
        ("champion", 3, false),
        ("other", 1, false),
    ] {
        let found = leader.store.alias_has_been("flowers", alias, number).await;
        assert_eq!(found.unwrap(), been, "{alias} {number}");
    }
}
