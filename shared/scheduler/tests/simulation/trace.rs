//! What happened in a world, for a person who replays a seed.

use pomona_domain::change::Change;
use pomona_scheduler::Event;
use std::fmt::Write as _;

use crate::coordinator::Answered;
use crate::world::World;

impl World {
    /// A readable trace of what was decided.
    pub fn note(&self, event: &Event, answer: &Answered) {
        if !self.is_shown {
            return;
        }
        let what = self.describe(event);
        match answer {
            Err(fault) => self.show(|| format!("{what}: refused, {} {fault}", fault.code)),
            Ok(changes) if changes.is_empty() => {}
            Ok(changes) => {
                self.show(|| what);
                for change in changes {
                    if let Change::Reason(row) = change {
                        println!("{:>15} {:?}: {}", "", row.subject, row.text);
                    }
                }
            }
        }
    }

    fn describe(&self, event: &Event) -> String {
        match event {
            Event::Polled {
                worker, reports, ..
            } => {
                let name = self.workers.iter().find(|row| row.id == *worker);
                let name = name.map_or("?", |row| row.name.as_str());
                let mut line = format!("{name} polls");
                for report in reports {
                    let (seq, lease, body) = (report.seq, report.lease, &report.body);
                    let _ = write!(line, "\n{:>15} #{seq} of {lease}: {body:?}", "");
                }
                line
            }
            Event::Registered {
                name, incarnation, ..
            } => format!("{name} registers as number {incarnation}"),
            Event::Submitted { id, .. } => format!("a user submits {id}"),
            Event::TaskSubmitted { id, spec, .. } => format!("a user submits {id}: {spec:?}"),
            Event::Tick => "time passes".to_owned(),
            Event::Pause(_)
            | Event::Resume(_)
            | Event::Cancel(_)
            | Event::StopTrial(_)
            | Event::Measured { .. }
            | Event::Pin { .. }
            | Event::Drain { .. }
            | Event::Undrain(_)
            | Event::TaskCanceled(_)
            | Event::AliasSet { .. }
            | Event::AliasRollback { .. }
            | Event::Registry { .. } => format!("a user: {event:?}"),
        }
    }
}
