//! Who leads: terms by the database's clock, and what a leader of before may still do.

use std::time::Duration;

use pomona_domain::Code;
use pomona_store::{Candidate, Election, Store, StoreError};

use crate::harness::{Home, Leader, execute, for_each_backend};
use crate::rows::{of_worker, worker};

for_each_backend!(
    one_leads_and_the_others_hear_where_it_is,
    a_term_that_is_over_is_anothers,
    who_led_last_leads_again_at_once,
    a_leader_of_before_writes_nothing_and_renews_nothing,
    of_many_that_stand_at_once_one_leads,
);

mod only_postgres {
    crate::harness::tests_on!(
        Postgres,
        a_commit_under_way_is_seen_by_the_next_leader_or_refused
    );
}

/// Nothing here waits for it.
const LONG: Duration = Duration::from_mins(10);
const ENDS: &str = "UPDATE leader SET until = 0";

fn candidate(name: &str) -> Candidate {
    Candidate {
        holder: name.to_owned(),
        address: format!("http://{name}:7878"),
    }
}

async fn stand(store: &Store, name: &str) -> Election {
    store.stand(&candidate(name), LONG).await.unwrap()
}

fn generation(election: Election) -> u64 {
    match election {
        Election::Leads(generation) => generation,
        Election::Follows(leader) => panic!("{leader:?} leads"),
    }
}

async fn one_leads_and_the_others_hear_where_it_is(home: Home) {
    let store = home.open().await;
    assert_eq!(store.leader().await.unwrap().left, None, "nobody leads yet");
    assert_eq!(stand(&store, "a").await, Election::Leads(1));
    let Election::Follows(leader) = stand(&store, "b").await else {
        panic!("two lead");
    };
    assert_eq!(
        (leader.holder.as_str(), leader.address.as_str()),
        ("a", "http://a:7878")
    );
    let left = leader.left.unwrap();
    assert!(left <= LONG && left > LONG / 2, "{left:?}");
    store.renew(1, LONG * 2).await.unwrap();
    assert!(store.leader().await.unwrap().left.unwrap() > LONG);
}

async fn a_term_that_is_over_is_anothers(home: Home) {
    let store = home.open().await;
    let short = Duration::from_millis(1);
    let first = store.stand(&candidate("a"), short).await.unwrap();
    assert_eq!(first, Election::Leads(1));
    // The database's clock goes on: no longer than it takes to ask.
    while store.leader().await.unwrap().left.is_some() {}
    assert_eq!(stand(&store, "b").await, Election::Leads(2));
    assert!(matches!(stand(&store, "a").await, Election::Follows(_)));
    store.resign(2).await.unwrap();
    assert_eq!(stand(&store, "a").await, Election::Leads(3), "b resigned");
}

async fn who_led_last_leads_again_at_once(home: Home) {
    let store = home.open().await;
    assert_eq!(stand(&store, "a").await, Election::Leads(1));
    assert_eq!(stand(&store, "a").await, Election::Leads(2));
    assert!(matches!(
        store.renew(1, LONG).await,
        Err(StoreError::NotLeader { generation: 1 })
    ));
}

async fn a_leader_of_before_writes_nothing_and_renews_nothing(home: Home) {
    let store = home.open().await;
    let mut before = Leader::by(store.clone(), generation(stand(&store, "a").await)).await;
    before.commit(&[of_worker(&worker(1))]).await;
    execute(&home.raw().await, ENDS).await;
    // Its term is over, and nobody has taken over: it leads until somebody does.
    before.commit(&[of_worker(&worker(2))]).await;
    store.renew(before.generation, LONG).await.unwrap();
    execute(&home.raw().await, ENDS).await;
    let mut next = Leader::by(store.clone(), generation(stand(&store, "b").await)).await;
    assert_eq!(
        before.refused(&[of_worker(&worker(3))]).await,
        Code::NotReady
    );
    for refused in [
        store.renew(before.generation, LONG).await,
        store.resign(before.generation).await,
    ] {
        assert!(matches!(refused, Err(StoreError::NotLeader { .. })));
    }
    assert!(
        store.leader().await.unwrap().left.is_some(),
        "b's term runs"
    );
    next.commit(&[of_worker(&worker(3))]).await;
    assert_eq!(store.load().await.unwrap().workers.len(), 3);
}

async fn of_many_that_stand_at_once_one_leads(home: Home) {
    let store = home.open().await;
    for round in 1..=5 {
        let all: Vec<_> = (0..8)
            .map(|number| {
                let store = store.clone();
                tokio::spawn(async move { stand(&store, &format!("{round}-{number}")).await })
            })
            .collect();
        let mut leaders = Vec::new();
        for one in all {
            if let Election::Leads(generation) = one.await.unwrap() {
                leaders.push(generation);
            }
        }
        assert_eq!(leaders, [round]);
        store.resign(round).await.unwrap();
    }
}

async fn a_commit_under_way_is_seen_by_the_next_leader_or_refused(home: Home) {
    let store = home.open().await;
    let mut before = Leader::by(store.clone(), generation(stand(&store, "a").await)).await;
    let other = home.open().await;
    for number in 1..=20 {
        execute(&home.raw().await, ENDS).await;
        let name = format!("b{number}");
        let changes = [of_worker(&worker(number))];
        let (committed, next) = tokio::join!(before.try_commit(&changes), stand(&other, &name));
        let next = Leader::by(other.clone(), generation(next)).await;
        let seen = other.load().await.unwrap().workers;
        let is_there = seen.iter().any(|row| changes == [of_worker(row)]);
        assert_eq!(is_there, committed.is_ok(), "round {number}");
        before = next;
    }
}
