//! Webhooks: which events are noted for whom, in which order they are due, and what is forgotten.

use std::collections::BTreeSet;

use pomona_domain::experiment::{Experiment, ExperimentState};
use pomona_domain::hook::{Delivery, DeliveryState, Flavour, Hook, HookStatus};
use pomona_domain::trial::TrialState;
use pomona_domain::{Change, Code, DeliveryId, Fault, HookId, Timestamp};
use pomona_store::{
    Due, HookChange, HookRefusal, MAX_DELIVERIES, MAX_PENDING, NewHook, PageRequest, Retention,
    Secret, Settled, Store,
};

use crate::harness::{Home, Leader, execute, for_each_backend, number};
use crate::rows::{at, experiment, of_experiment, of_trial, trial};

for_each_backend!(
    a_hook_is_told_what_is_committed_after_it_was_made,
    an_end_is_told_once_with_the_commit_that_makes_it,
    of_one_subject_the_later_event_waits_for_the_earlier,
    many_that_note_at_once_note_each_event_once,
    a_disabled_hook_is_told_nothing_until_a_replay,
    a_result_counts_only_for_its_own_attempt,
    what_is_replayed_goes_before_what_came_later,
    names_of_ours_are_taken_and_a_repeat_is_the_same,
    what_is_changed_of_a_hook_stays_changed,
    too_many_that_wait_are_dropped_and_noted,
    what_an_active_hook_is_still_to_be_told_is_not_forgotten,
    the_log_of_a_hook_has_an_end,
);

mod on_postgres {
    crate::harness::tests_on!(
        Postgres,
        what_commits_late_under_a_lower_number_is_not_passed_over
    );
}

/// A webhook that is told of ends and failures.
fn hook(id: u64) -> NewHook {
    NewHook {
        hook: Hook {
            id: HookId(id),
            name: format!("hook-{id}"),
            description: String::new(),
            url: "https://ci.example.org/hook".to_owned(),
            events: vec!["experiment.ended".to_owned(), "trial.failed".to_owned()],
            status: HookStatus::Active,
            flavour: Flavour::Pomona,
            created_at: at(0),
            updated_at: at(0),
        },
        secret: Secret("whsec_hush".to_owned()),
    }
}

async fn make(store: &Store, id: u64) -> HookId {
    store.hook_create(&hook(id)).await.unwrap().unwrap().id
}

fn ended(number: u64, version: u64, when: i64) -> Experiment {
    let mut row = experiment(number);
    row.version = version;
    row.state = ExperimentState::Completed;
    row.ended_at = Some(at(when));
    row
}

fn failed(owner: &Experiment, number: u32, when: i64) -> Change {
    let mut row = trial(owner.id, number);
    row.state = TrialState::Failed {
        fault: Fault::new(Code::OutOfMemory, "it took too much"),
    };
    row.ended_at = Some(at(when));
    of_trial(&row)
}

/// An experiment ends in one commit.
async fn end(leader: &mut Leader, number: u64, when: i64) {
    leader
        .commit(&[of_experiment(&ended(number, 1, when))])
        .await;
}

async fn all(store: &Store, hook: HookId) -> Vec<Delivery> {
    let page = PageRequest::first(1000);
    let mut rows = store.delivery_list(hook, None, &page).await.unwrap().items;
    rows.reverse();
    rows
}

async fn due(store: &Store, now: Timestamp) -> Vec<Due> {
    let due = store.deliveries_due(now, 100, &BTreeSet::new()).await;
    let mut due = due.unwrap().0;
    due.sort_by_key(|one| one.delivery.event);
    due
}

async fn subjects(store: &Store, now: Timestamp) -> Vec<(String, u64)> {
    let rows = due(store, now).await;
    let of = |one: Due| (one.delivery.subject, one.delivery.event);
    rows.into_iter().map(of).collect()
}

fn settled(state: DeliveryState, next: Timestamp) -> Settled {
    Settled {
        state,
        next_at: next,
        status: Some(200),
        error: None,
    }
}

async fn deliver(store: &Store, delivery: &Delivery, now: Timestamp) -> bool {
    let done = settled(DeliveryState::Delivered, now);
    store.delivery_settle(delivery, &done, now).await.unwrap()
}

async fn a_hook_is_told_what_is_committed_after_it_was_made(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    end(&mut leader, 1, 10).await;
    let id = make(&store, 7).await;
    let other = NewHook {
        hook: Hook {
            events: vec!["model_version.created".to_owned()],
            ..hook(8).hook
        },
        ..hook(8)
    };
    store.hook_create(&other).await.unwrap().unwrap();
    end(&mut leader, 2, 20).await;
    assert!(store.outbox_waits().await.unwrap());
    assert_eq!(store.outbox_oldest().await.unwrap(), Some(at(20)));
    let noted = store.outbox_note(at(21)).await.unwrap();
    assert_eq!((noted.events, noted.pending, noted.dropped), (1, 1, 0));
    assert_eq!(store.outbox_note(at(22)).await.unwrap().events, 0);
    assert!(!store.outbox_waits().await.unwrap());
    let rows = all(&store, id).await;
    assert_eq!(rows.len(), 1, "{rows:?}");
    let row = &rows[0];
    assert_eq!(
        row.id,
        DeliveryId::of(id, row.event),
        "the same wherever it is computed"
    );
    assert_eq!(
        (row.topic.as_str(), row.created_at),
        ("experiment.ended", at(20))
    );
    assert_eq!((row.state, row.attempts), (DeliveryState::Pending, 0));
    assert!(all(&store, other.hook.id).await.is_empty());
    let due = due(&store, at(21)).await;
    assert_eq!(
        (due[0].url.as_str(), &due[0].secret),
        ("https://ci.example.org/hook", &hook(7).secret)
    );
    assert!(due[0].doc.as_ref().unwrap().contains("flowers-2"));
    assert!(!format!("{due:?}").contains("hush"), "{due:?}");
    assert_eq!(store.delivery_counts(id).await.unwrap(), (1, 0));
}

async fn an_end_is_told_once_with_the_commit_that_makes_it(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let told = async || {
        let rows = store.outbox_list(0, 100).await.unwrap();
        rows.into_iter()
            .map(|row| (row.topic, row.subject))
            .collect::<Vec<_>>()
    };
    leader.commit(&[of_experiment(&experiment(1))]).await;
    assert!(told().await.is_empty());
    let (mut wrong, mut good) = (ended(1, 2, 20), ended(1, 2, 20));
    wrong.version = 7;
    assert_eq!(
        leader.refused(&[of_experiment(&wrong)]).await,
        Code::Conflict
    );
    assert!(told().await.is_empty());
    let mut canceled = trial(good.id, 3);
    canceled.state = TrialState::Canceled;
    let batch = [
        failed(&good, 1, 19),
        failed(&good, 2, 19),
        of_trial(&canceled),
        of_experiment(&good),
    ];
    leader.commit(&batch).await;
    let subject = format!("experiment/{}", good.id);
    let of = |topic: &str| (topic.to_owned(), subject.clone());
    let expect = [
        of("trial.failed"),
        of("trial.failed"),
        of("experiment.ended"),
    ];
    assert_eq!(told().await, expect);
    // Ended rows are written again when their leases end.
    good.version = 3;
    good.spent.leases += 1;
    leader.commit(&[of_experiment(&good)]).await;
    assert_eq!(told().await, expect);
    let doc = store.outbox_list(0, 1).await.unwrap().remove(0).doc;
    assert!(doc.contains("it took too much"), "{doc}");
}

async fn of_one_subject_the_later_event_waits_for_the_earlier(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    make(&store, 7).await;
    let owner = experiment(1);
    leader.commit(&[of_experiment(&owner)]).await;
    leader.commit(&[failed(&owner, 1, 10)]).await;
    leader.commit(&[failed(&owner, 2, 11)]).await;
    end(&mut leader, 2, 12).await;
    leader.commit(&[of_experiment(&ended(1, 2, 13))]).await;
    store.outbox_note(at(20)).await.unwrap();
    let [first, second, other, last] = all(&store, HookId(7)).await.try_into().unwrap();
    let events = async |now| {
        subjects(&store, now)
            .await
            .into_iter()
            .map(|(_, event)| event)
            .collect::<Vec<_>>()
    };
    assert_eq!(events(at(20)).await, [first.event, other.event]);
    // The first is to be tried again: others go on, its own subject waits.
    let again = settled(DeliveryState::Pending, at(100));
    assert!(store.delivery_settle(&first, &again, at(21)).await.unwrap());
    assert_eq!(events(at(22)).await, [other.event]);
    assert!(deliver(&store, &other, at(22)).await);
    let (none, next) = store
        .deliveries_due(at(23), 10, &BTreeSet::new())
        .await
        .unwrap();
    assert_eq!((none, next), (Vec::new(), Some(at(100))));
    let first = due(&store, at(100)).await.remove(0).delivery;
    assert_eq!((first.attempts, first.attempted_at), (1, Some(at(21))));
    let busy = BTreeSet::from([first.id]);
    assert!(
        store
            .deliveries_due(at(100), 10, &busy)
            .await
            .unwrap()
            .0
            .is_empty()
    );
    // Given up: the next one may go.
    let over = settled(DeliveryState::Failed, at(100));
    assert!(store.delivery_settle(&first, &over, at(100)).await.unwrap());
    assert_eq!(events(at(101)).await, [second.event]);
    assert!(deliver(&store, &second, at(101)).await);
    assert_eq!(events(at(102)).await, [last.event]);
    assert!(deliver(&store, &last, at(102)).await);
    assert_eq!(store.outbox_oldest().await.unwrap(), None);
    assert_eq!(store.delivery_counts(HookId(7)).await.unwrap(), (0, 1));
}

async fn many_that_note_at_once_note_each_event_once(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    make(&store, 7).await;
    make(&store, 8).await;
    let noters: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut noted = 0;
                for _ in 0..10 {
                    noted += store.outbox_note(at(5)).await.unwrap().events;
                }
                noted
            })
        })
        .collect();
    for number in 1..=30 {
        end(&mut leader, number, 10).await;
    }
    let mut noted = 0;
    for noter in noters {
        noted += noter.await.unwrap();
    }
    noted += store.outbox_note(at(5)).await.unwrap().events;
    assert_eq!(noted, 30);
    for id in [7, 8] {
        assert_eq!(all(&store, HookId(id)).await.len(), 30);
    }
}

async fn a_disabled_hook_is_told_nothing_until_a_replay(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    let set = async |status| {
        let change = HookChange {
            status: Some(status),
            ..HookChange::default()
        };
        store
            .hook_update(id, &change, at(50))
            .await
            .unwrap()
            .unwrap()
    };
    end(&mut leader, 1, 10).await;
    assert_eq!(set(HookStatus::Disabled).await.status, HookStatus::Disabled);
    end(&mut leader, 2, 20).await;
    store.outbox_note(at(21)).await.unwrap();
    assert_eq!(all(&store, id).await.len(), 1, "what happened before waits");
    assert!(due(&store, at(60)).await.is_empty());
    assert_eq!(store.outbox_oldest().await.unwrap(), None);
    set(HookStatus::Active).await;
    end(&mut leader, 3, 30).await;
    store.outbox_note(at(31)).await.unwrap();
    assert_eq!(all(&store, id).await.len(), 2);
    let events = hook(7).hook.events;
    let sent = store
        .deliveries_replay(id, &events, at(15), at(60))
        .await
        .unwrap();
    assert_eq!(
        sent, 1,
        "the one that it was not told of; the others wait already"
    );
    let told: Vec<_> = all(&store, id)
        .await
        .into_iter()
        .map(|row| row.created_at)
        .collect();
    assert_eq!(told, [at(10), at(20), at(30)]);
}

async fn a_result_counts_only_for_its_own_attempt(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    end(&mut leader, 1, 10).await;
    store.outbox_note(at(11)).await.unwrap();
    let old = all(&store, id).await.remove(0);
    let failure = Settled {
        state: DeliveryState::Pending,
        next_at: at(12),
        status: None,
        error: Some("no answer".to_owned()),
    };
    assert!(store.delivery_settle(&old, &failure, at(11)).await.unwrap());
    assert!(
        !deliver(&store, &old, at(11)).await,
        "a leader of before comes late"
    );
    let now = all(&store, id).await.remove(0);
    assert_eq!(
        (now.attempts, now.last_status, now.last_error.as_deref()),
        (1, None, Some("no answer"))
    );
    assert!(deliver(&store, &now, at(12)).await);
    assert!(!deliver(&store, &now, at(12)).await);
    assert!(store.hook_delete(id).await.unwrap());
    assert!(!store.hook_delete(id).await.unwrap());
    assert!(all(&store, id).await.is_empty());
    assert!(!deliver(&store, &now, at(13)).await);
}

async fn what_is_replayed_goes_before_what_came_later(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    let owner = experiment(1);
    leader.commit(&[of_experiment(&owner)]).await;
    leader.commit(&[failed(&owner, 1, 10)]).await;
    leader.commit(&[failed(&owner, 2, 11)]).await;
    store.outbox_note(at(20)).await.unwrap();
    let [first, second] = all(&store, id).await.try_into().unwrap();
    assert!(deliver(&store, &first, at(21)).await);
    let again = store
        .delivery_replay(id, first.id, at(22))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (again.id, again.state, again.attempts),
        (first.id, DeliveryState::Pending, 0)
    );
    let head = due(&store, at(22)).await.remove(0).delivery;
    assert_eq!(head.id, first.id);
    assert!(deliver(&store, &head, at(23)).await);
    assert!(deliver(&store, &second, at(24)).await);
    assert_eq!(
        store
            .delivery_replay(HookId(9), first.id, at(25))
            .await
            .unwrap(),
        None
    );
    let events = hook(7).hook.events;
    let sent = store.deliveries_replay(id, &events, at(11), at(30));
    assert_eq!(sent.await.unwrap(), 1);
    assert_eq!(due(&store, at(30)).await[0].delivery.id, second.id);
    let page = PageRequest::first(10);
    let waiting = store
        .delivery_list(id, Some(DeliveryState::Pending), &page)
        .await
        .unwrap();
    assert_eq!(waiting.items.len(), 1);
}

async fn names_of_ours_are_taken_and_a_repeat_is_the_same(home: Home) {
    let store = home.open().await;
    let made = store.hook_create(&hook(7)).await.unwrap();
    assert_eq!(store.hook_create(&hook(7)).await.unwrap(), made, "repeated");
    let mut other = hook(8);
    "hook-7".clone_into(&mut other.hook.name);
    assert_eq!(
        store.hook_create(&other).await.unwrap(),
        Err(HookRefusal::NameTaken)
    );
    for id in [9, 10] {
        let mut theirs = hook(id);
        "hook-7".clone_into(&mut theirs.hook.name);
        theirs.hook.flavour = Flavour::Mlflow;
        assert!(store.hook_create(&theirs).await.unwrap().is_ok());
    }
    assert_eq!(store.hook_named("hook-7").await.unwrap().len(), 3);
    make(&store, 8).await;
    let rename = |name: &str| HookChange {
        name: Some(name.to_owned()),
        ..HookChange::default()
    };
    let taken = store
        .hook_update(HookId(8), &rename("hook-7"), at(1))
        .await
        .unwrap();
    assert_eq!(taken, Err(HookRefusal::NameTaken));
    assert!(
        store
            .hook_update(HookId(8), &rename("hook-8"), at(1))
            .await
            .unwrap()
            .is_ok()
    );
    let missing = store
        .hook_update(HookId(99), &rename("x"), at(1))
        .await
        .unwrap();
    assert_eq!(missing, Err(HookRefusal::Missing));
    let mlflow: Vec<_> = store
        .hook_list_mlflow(0, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(mlflow, [HookId(9), HookId(10)]);
    let first = store.hook_list(&PageRequest::first(3)).await.unwrap();
    let rest = PageRequest::first(3).after(first.next_page_token);
    assert_eq!(
        (
            first.items.len(),
            store.hook_list(&rest).await.unwrap().items.len()
        ),
        (3, 1)
    );
}

async fn what_is_changed_of_a_hook_stays_changed(home: Home) {
    let store = home.open().await;
    let id = make(&store, 7).await;
    let change = HookChange {
        name: Some("other".to_owned()),
        description: Some("für die Auslieferung".to_owned()),
        url: Some("https://b.example.org/".to_owned()),
        events: Some(vec!["trial.failed".to_owned()]),
        secret: Some(Secret("whsec_new".to_owned())),
        status: Some(HookStatus::Disabled),
    };
    let changed = store
        .hook_update(id, &change, at(9))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(store.hook_get(id).await.unwrap(), Some(changed.clone()));
    assert_eq!(
        changed,
        Hook {
            id,
            name: "other".to_owned(),
            description: "für die Auslieferung".to_owned(),
            url: "https://b.example.org/".to_owned(),
            events: vec!["trial.failed".to_owned()],
            status: HookStatus::Disabled,
            flavour: Flavour::Pomona,
            created_at: at(0),
            updated_at: at(9),
        }
    );
    assert_eq!(store.hook_secret(id).await.unwrap(), change.secret);
    assert!(!format!("{change:?} {:?}", hook(7)).contains("whsec"));
}

/// So many deliveries in a state, of events that nothing else has.
async fn crowd(home: &Home, state: &str, count: u64) {
    let sql = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) \
         INSERT INTO webhook_deliveries (id, hook, event, topic, subject, state, attempts, next_at, \
         created_at) SELECT 'x' || i, '{}', -i, 'x', 'x', '{state}', 0, 0, {} FROM n",
        HookId(7),
        at(0).0
    );
    execute(&home.raw().await, &sql).await;
}

async fn too_many_that_wait_are_dropped_and_noted(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    make(&store, 8).await;
    crowd(&home, "pending", MAX_PENDING - 1).await;
    end(&mut leader, 1, 10).await;
    end(&mut leader, 2, 11).await;
    let noted = store.outbox_note(at(12)).await.unwrap();
    assert_eq!((noted.pending, noted.dropped), (3, 1));
    let page = PageRequest::first(10);
    let dropped = store
        .delivery_list(id, Some(DeliveryState::Dropped), &page)
        .await
        .unwrap();
    assert_eq!(dropped.items[0].created_at, at(11));
    assert!(dropped.items[0].last_error.is_some());
    assert_eq!(all(&store, HookId(8)).await.len(), 2);
}

async fn what_an_active_hook_is_still_to_be_told_is_not_forgotten(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    let retention = Retention {
        outbox_ms: 100_000,
        ..Retention::default()
    };
    let kept = async |now| {
        store.retain(at(now), &retention).await.unwrap();
        let rows = all(&store, id).await;
        (store.outbox_list(0, 10).await.unwrap().len(), rows.len())
    };
    end(&mut leader, 1, 0).await;
    end(&mut leader, 2, 0).await;
    // Nobody has noted them when they are old enough to be forgotten.
    assert_eq!(kept(150).await, (2, 2));
    let first = all(&store, id).await.remove(0);
    assert!(deliver(&store, &first, at(151)).await);
    assert_eq!(kept(152).await, (1, 1), "what was delivered goes");
    assert_eq!(kept(200).await, (1, 1));
    assert_eq!(kept(201).await, (0, 0), "nothing waits for ever");
    end(&mut leader, 3, 300).await;
    store.outbox_note(at(301)).await.unwrap();
    let change = HookChange {
        status: Some(HookStatus::Disabled),
        ..HookChange::default()
    };
    store
        .hook_update(id, &change, at(302))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(kept(350).await, (1, 1));
    assert_eq!(
        kept(401).await,
        (0, 0),
        "a disabled one waits no longer than the rest"
    );
}

async fn the_log_of_a_hook_has_an_end(home: Home) {
    let store = home.open().await;
    make(&store, 7).await;
    crowd(&home, "delivered", MAX_DELIVERIES + 5).await;
    store.retain(at(1), &Retention::default()).await.unwrap();
    let raw = home.raw().await;
    let count = number(&raw, "SELECT count(*) FROM webhook_deliveries").await;
    assert_eq!(count, i64::try_from(MAX_DELIVERIES).unwrap());
    let oldest = number(&raw, "SELECT min(event) FROM webhook_deliveries").await;
    assert_eq!(oldest, -count, "the oldest go first");
}

async fn what_commits_late_under_a_lower_number_is_not_passed_over(home: Home) {
    let mut leader = home.lead().await;
    let store = leader.store.clone();
    let id = make(&store, 7).await;
    // Somebody else's transaction has its number and is not committed.
    let raw = home.raw().await;
    let sql = format!(
        "INSERT INTO outbox (topic, subject, at, doc) VALUES ('trial.failed', 'x', {}, '{{}}')",
        at(5).0
    );
    let late = crate::harness::writing(&raw, &sql).await;
    end(&mut leader, 1, 10).await;
    store.outbox_note(at(11)).await.unwrap();
    assert_eq!(all(&store, id).await.len(), 1);
    late.commit().await.unwrap();
    store.outbox_note(at(12)).await.unwrap();
    let rows = all(&store, id).await;
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].topic, "trial.failed");
}
