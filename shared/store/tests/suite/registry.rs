//! Models, versions, and aliases that move with their history and outbox (R1, R2, R5).

use pomona_domain::model::{Alias, AliasMove};
use pomona_domain::{Change, Code};
use pomona_store::PageRequest;

use crate::harness::{Home, Leader, for_each_backend};
use crate::rows::{alias_move, at, of_version, version};

for_each_backend!(
    a_model_is_listed_with_its_newest_version_and_aliases,
    each_move_of_an_alias_has_a_row_of_history_and_of_the_outbox,
    the_history_says_where_an_alias_pointed_at_any_moment,
    two_that_move_an_alias_from_one_revision_do_not_both_win,
    several_moves_in_one_batch_follow_each_other,
    a_version_never_changes,
);

/// Three versions of `flowers`, and one of `trees`.
async fn with_versions(home: &Home) -> Leader {
    let mut leader = home.lead().await;
    let blob = leader.put(b"abc", at(0)).await.digest;
    let mut changes: Vec<Change> = (1..=3)
        .map(|number| of_version(&version("flowers", number, blob)))
        .collect();
    changes.push(of_version(&version("trees", 1, blob)));
    leader.commit(&changes).await;
    leader
}

/// The champion of `flowers` goes to 1, 2, 3 and back to 1.
fn moves() -> [AliasMove; 4] {
    [
        alias_move("flowers", 1, None, 1),
        alias_move("flowers", 2, Some(1), 2),
        alias_move("flowers", 3, Some(2), 3),
        alias_move("flowers", 4, Some(3), 1),
    ]
}

fn champion(number: u32, revision: u64) -> Alias {
    Alias {
        model: "flowers".to_owned(),
        alias: "champion".to_owned(),
        number,
        revision,
        deleted: false,
    }
}

async fn a_model_is_listed_with_its_newest_version_and_aliases(home: Home) {
    let mut leader = with_versions(&home).await;
    let other = AliasMove {
        alias: "baseline".to_owned(),
        ..alias_move("flowers", 1, None, 2)
    };
    leader
        .commit(&[
            Change::AliasMoved(moves()[0].clone()),
            Change::AliasMoved(other),
        ])
        .await;
    let page = leader
        .store
        .model_list(&PageRequest::default())
        .await
        .unwrap();
    let shown: Vec<_> = (page.items.iter())
        .map(|row| {
            (
                row.name.as_str(),
                row.newest,
                row.created_at,
                row.aliases.len(),
            )
        })
        .collect();
    assert_eq!(shown, [("flowers", 3, at(1), 2), ("trees", 1, at(1), 0)]);
    let model = leader.store.model_face("flowers").await.unwrap();
    assert_eq!(model.as_ref(), page.items.first());
    assert_eq!(model.unwrap().aliases[1], champion(1, 1), "by name");
    assert_eq!(leader.store.model_face("weeds").await.unwrap(), None);
    let aliases = leader.store.alias_list("flowers").await.unwrap();
    assert_eq!(aliases.len(), 2);
    assert!(leader.store.alias_list("trees").await.unwrap().is_empty());
}

async fn each_move_of_an_alias_has_a_row_of_history_and_of_the_outbox(home: Home) {
    let mut leader = with_versions(&home).await;
    let before = leader.store.outbox_list(0, 1000).await.unwrap();
    let topics: Vec<&str> = before.iter().map(|row| row.topic.as_str()).collect();
    assert_eq!(topics[0], "registered_model.created");
    assert_eq!(
        topics
            .iter()
            .filter(|topic| **topic == "model_version.created")
            .count(),
        4
    );
    let (mut seen, mut last) = (Vec::new(), before.last().unwrap().seq);
    let first = last;
    for step in moves() {
        leader.commit(&[Change::AliasMoved(step.clone())]).await;
        let alias = leader.store.alias_get("flowers", "champion").await.unwrap();
        assert_eq!(alias, Some(champion(step.to, step.revision)));
        let told = leader.store.outbox_list(last, 10).await.unwrap();
        assert_eq!(told.len(), 1, "one row for one move");
        assert!(told[0].seq > last);
        last = told[0].seq;
        assert_eq!(
            (told[0].topic.as_str(), told[0].at),
            ("model_version_alias.created", step.at)
        );
        let doc: AliasMove = serde_json::from_str(&told[0].doc).unwrap();
        assert_eq!(doc, step);
        seen.insert(0, step);
        let page = PageRequest::default();
        let history = leader
            .store
            .alias_history("flowers", "champion", None, &page)
            .await;
        assert_eq!(history.unwrap().items, seen);
    }
    assert_eq!(
        leader.store.outbox_list(first, 3).await.unwrap().len(),
        3,
        "a limit holds"
    );
    let all = leader.store.outbox_list(first, 1000).await.unwrap();
    assert!(all.is_sorted_by_key(|row| row.seq));
    assert!(all.iter().all(|row| row.subject == "model/flowers"));
    assert_eq!(all.len(), 4);
}

async fn the_history_says_where_an_alias_pointed_at_any_moment(home: Home) {
    let mut leader = with_versions(&home).await;
    leader.commit(&moves().map(Change::AliasMoved)).await;
    // Move n happens at 100 · n seconds.
    for (moment, expect) in [
        (at(99), None),
        (at(100), Some(1)),
        (at(299), Some(2)),
        (at(300), Some(3)),
        (at(300).plus_ms(-1), Some(2)),
        (at(5000), Some(1)),
    ] {
        let page = PageRequest::first(1);
        let history = leader
            .store
            .alias_history("flowers", "champion", Some(moment), &page);
        let pointed = history.await.unwrap().items.first().map(|step| step.to);
        assert_eq!(pointed, expect, "at {moment}");
    }
    let page = PageRequest::first(10);
    let none = leader
        .store
        .alias_history("trees", "champion", None, &page)
        .await
        .unwrap();
    assert!(none.items.is_empty());
}

/// Moves of aliases that wait to be told.
async fn moves_told(leader: &Leader) -> usize {
    let rows = leader.store.outbox_list(0, 100).await.unwrap();
    let is_move = |topic: &str| topic.starts_with("model_version_alias.");
    rows.iter().filter(|row| is_move(&row.topic)).count()
}

async fn two_that_move_an_alias_from_one_revision_do_not_both_win(home: Home) {
    let mut leader = with_versions(&home).await;
    let [first, second, ..] = moves();
    leader
        .commit(&[Change::AliasMoved(first), Change::AliasMoved(second)])
        .await;
    let late = alias_move("flowers", 2, Some(1), 3);
    assert_eq!(
        leader.refused(&[Change::AliasMoved(late)]).await,
        Code::Conflict
    );
    let alias = leader.store.alias_get("flowers", "champion").await.unwrap();
    assert_eq!(alias, Some(champion(2, 2)));
    assert_eq!(moves_told(&leader).await, 2);
}

async fn several_moves_in_one_batch_follow_each_other(home: Home) {
    let mut leader = with_versions(&home).await;
    let [first, second, third, _] = moves().map(Change::AliasMoved);
    let wrong = [first.clone(), third.clone(), second.clone()];
    assert_eq!(leader.refused(&wrong).await, Code::Conflict);
    assert_eq!(moves_told(&leader).await, 0);
    leader.commit(&[first, second, third]).await;
    let alias = leader.store.alias_get("flowers", "champion").await.unwrap();
    assert_eq!(alias, Some(champion(3, 3)));
}

async fn a_version_never_changes(home: Home) {
    let mut leader = with_versions(&home).await;
    let before = leader
        .store
        .version_get("flowers", 2)
        .await
        .unwrap()
        .unwrap();
    let mut again = before.clone();
    again.metrics.clear();
    assert_eq!(leader.refused(&[of_version(&again)]).await, Code::Conflict);
    again.id = pomona_domain::VersionId(7);
    assert_eq!(leader.refused(&[of_version(&again)]).await, Code::Conflict);
    let after = leader.store.version_get("flowers", 2).await.unwrap();
    assert_eq!(after, Some(before));
    assert_eq!(leader.store.version_get("flowers", 4).await.unwrap(), None);
}
