//! The one place where anything is decided: an event and what is remembered give changes.
//!
//! Pure and total: no clock, no I/O, no panic; the same cluster, time and event give the same
//! decision. Every decision ends with placing what waits, so an exit and the next lease are one; one
//! that only says that a worker lives, or what a trial measured, leaves slots and queue as they are,
//! and what time alone lets start the next tick places.

mod control;
mod draft;
mod experiment;
mod gates;
mod lease;
mod registry;
mod reports;
mod retention;
mod search;
mod submit;
mod task;
#[cfg(test)]
mod tests;
mod tick;
mod trial;
mod worker;

use crate::{Cluster, Decision, Event};
use draft::Draft;
use pomona_domain::{Code, Fault, Timestamp};

/// Decides one event. A refused event changes nothing, but that gates refused a move is kept.
pub fn decide(cluster: &Cluster, now: Timestamp, event: &Event) -> Decision {
    let mut draft = Draft::new(cluster, now);
    if let Event::Polled { evidence, .. } = event {
        draft.evidence = evidence;
    }
    let outcome = handle(&mut draft, event);
    let changes = if outcome.is_ok() {
        if draft.stirs() || *event == Event::Tick {
            arrange(&mut draft);
        }
        draft.finish()
    } else {
        draft.refuse()
    };
    Decision { changes, outcome }
}

/// Places what waits, has drawn what there are slots left for, and asks others to yield, until none
/// of it changes anything (S8): slots that will come free may change which are set aside.
fn arrange(draft: &mut Draft) {
    loop {
        lease::place(draft);
        if !experiment::replenish(draft) && !control::preempt(draft) {
            return;
        }
    }
}

fn handle(draft: &mut Draft, event: &Event) -> Result<(), Fault> {
    match event {
        Event::Submitted {
            id,
            spec,
            source,
            dataset,
            backbone,
            plan,
        } => {
            let found = (*dataset, *backbone);
            submit::submitted(draft, *id, spec, source, found, plan.as_deref())
        }
        Event::Pause(id) => control::pause(draft, *id),
        Event::Resume(id) => control::resume(draft, *id),
        Event::Cancel(id) => control::cancel(draft, *id),
        Event::StopTrial(id) => control::stop_trial(draft, *id),
        Event::Registered {
            id,
            name,
            incarnation,
            slots,
            labels,
        } => {
            let said = worker::Introduction {
                name,
                incarnation: *incarnation,
                slots,
                labels,
            };
            worker::registered(draft, *id, &said);
            Ok(())
        }
        Event::Polled {
            worker,
            incarnation,
            reports,
            ..
        } => worker::polled(draft, *worker, *incarnation, reports),
        Event::Pin {
            trial,
            pinned,
            ended,
        } => retention::pin(draft, *trial, *pinned, ended.as_deref()),
        Event::Measured { observation } => reports::told(draft, observation),
        Event::Drain { worker, grace_ms } => worker::drain(draft, *worker, *grace_ms),
        Event::Undrain(id) => worker::undrain(draft, *id),
        Event::TaskSubmitted { id, spec, priority } => task::submitted(draft, *id, spec, *priority),
        Event::TaskCanceled(id) => task::canceled(draft, *id),
        Event::AliasSet { .. } => registry::alias_asked(draft, event),
        Event::Approved(approval) => gates::approved(draft, approval),
        Event::AliasRollback {
            model,
            alias,
            reason,
            to,
            by,
        } => registry::alias_rollback(draft, (model, alias), *to, (reason, by)),
        Event::Registry { model, wish, by } => registry::wished(draft, model, wish, by),
        Event::Tick => {
            tick::tick(draft);
            Ok(())
        }
    }
}

fn not_found(what: impl std::fmt::Display) -> Fault {
    Fault::new(
        Code::NotFound,
        format!("there is no `{what}`, or it has ended"),
    )
}
