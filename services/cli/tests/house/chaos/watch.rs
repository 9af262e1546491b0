//! What must hold in the database at every moment, asked for by queries while faults strike.

use pomona_testing::Postgres;
use std::collections::BTreeSet;

/// Each gives a line for each violation.
const NEVER: [(&str, &str); 5] = [
    (
        "S1: a slot is in two live leases",
        "SELECT s::text FROM leases, json_array_elements(doc::json->'slots') s \
         WHERE NOT ended GROUP BY s::text HAVING count(*) > 1",
    ),
    (
        "S2, S7: a trial runs on a lease that is over, or is not there",
        "SELECT t.id FROM trials t LEFT JOIN leases l ON l.id = t.doc::json->>'lease' \
         WHERE t.state IN ('running', 'stopping') AND (l.id IS NULL OR l.ended)",
    ),
    (
        "S4: an observation is newer than its trial knows",
        "SELECT o.trial_id, o.step FROM observations o JOIN trials t ON t.id = o.trial_id \
         WHERE o.step > (t.doc::json->>'last_step')::bigint",
    ),
    (
        "S9: more trials live than may",
        "SELECT e.id FROM experiments e JOIN trials t ON t.experiment_id = e.id \
         WHERE t.state IN ('running', 'stopping') GROUP BY e.id, e.doc \
         HAVING count(*) > (e.doc::json->'spec'->'search'->>'max_concurrent')::int",
    ),
    (
        "R3: a checkpoint names a blob that is not here",
        "SELECT c.trial_id FROM checkpoints c LEFT JOIN blobs b ON b.digest = c.digest \
         WHERE b.digest IS NULL",
    ),
];

/// What was seen up to now.
#[derive(Debug, Default)]
pub struct Watch {
    pub violations: Vec<String>,
    /// How often everything was asked.
    pub looks: u32,
    ended: BTreeSet<String>,
    leader: (u64, u64),
}

impl Watch {
    /// Asks everything, if the database answers.
    pub fn look(&mut self, postgres: &Postgres) {
        for (law, sql) in NEVER {
            let Some(lines) = postgres.query(sql) else {
                return;
            };
            let broken = lines.iter().map(|line| format!("{law}: {line}"));
            self.violations.extend(broken);
        }
        let Some(ended) = postgres.query("SELECT id || ' ' || state FROM trials WHERE ended")
        else {
            return;
        };
        let ended: BTreeSet<String> = ended.into_iter().collect();
        let gone = self.ended.difference(&ended);
        let gone = gone.map(|line| format!("S6: an ended trial did not stay so: {line}"));
        self.violations.extend(gone);
        self.ended = ended;
        if let Some(lines) = postgres.query("SELECT generation || ' ' || seq FROM leader") {
            let numbers = lines.first().and_then(|line| line.split_once(' '));
            let numbers = numbers.and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
            let now = numbers.unwrap_or(self.leader);
            if now.0 < self.leader.0 || now.1 < self.leader.1 {
                let text = format!(
                    "the leader's numbers fell from {:?} to {now:?}",
                    self.leader
                );
                self.violations.push(text);
            }
            self.leader = now;
        }
        self.looks += 1;
    }
}
