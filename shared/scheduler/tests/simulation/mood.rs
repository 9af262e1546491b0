//! What becomes of trainers and of their trials, and who says so: a script, poison, chance.

use pomona_domain::TrialId;
use std::collections::{BTreeMap, VecDeque};

use crate::coordinator::{Job, Member, Wanted};
use crate::dice::Dice;

/// What becomes of a trainer, or of one of its trials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It trains to the end.
    Well,
    /// It trains to the end, at a tenth of the speed.
    Slow,
    /// It dies without a word after so many moves.
    Crashes(u32),
    /// It stops moving after so many moves; its worker ends it in the end.
    Hangs(u32),
    /// The trial's loss becomes NaN after so many moves.
    Diverges(u32),
    /// The trial is ended by its trainer after so many moves, and no other attempt would help.
    Breaks(u32),
    /// The same, and another attempt may help.
    Stumbles(u32),
    /// It fails after so many moves and says that no other attempt would help.
    Fails(u32),
    /// The worker cannot start it.
    CannotStart,
    /// It does not react when it is asked to stop.
    Deaf,
}

impl Mood {
    /// Whether it is a matter of one trial, so that others in the process go on.
    pub fn is_of_one(self) -> bool {
        match self {
            Self::Well | Self::Diverges(_) | Self::Breaks(_) | Self::Stumbles(_) => true,
            Self::Slow
            | Self::Crashes(_)
            | Self::Hangs(_)
            | Self::Fails(_)
            | Self::CannotStart
            | Self::Deaf => false,
        }
    }
}

/// What becomes of a trainer that starts, by trial: what a script says, what is poisonous, chance.
pub fn draw(
    dice: &mut Dice,
    poison: &BTreeMap<TrialId, u32>,
    scripted: &mut BTreeMap<TrialId, VecDeque<Mood>>,
    ill: u32,
    want: &Wanted,
) -> Vec<Mood> {
    let mut moods = match &want.job {
        Job::Task { .. } => vec![Mood::Well],
        Job::Train { members } => {
            let mut own = |member: &Member| {
                let said = scripted.get_mut(&member.trial);
                let said = said.and_then(VecDeque::pop_front);
                let always = poison.get(&member.trial).copied().map(Mood::Crashes);
                said.or(always).unwrap_or(Mood::Well)
            };
            members.iter().map(&mut own).collect()
        }
    };
    let chosen = moods.iter().any(|mood| *mood != Mood::Well);
    if chosen || !dice.chance(ill) {
        return moods;
    }
    let after = dice.count(0, 5);
    let victim = dice.between(0, moods.len() as i64 - 1) as usize;
    moods[victim] = dice.pick(&[
        Mood::Slow,
        Mood::Crashes(after),
        Mood::Crashes(after),
        Mood::Hangs(after),
        Mood::Diverges(after),
        Mood::Breaks(after),
        Mood::Stumbles(after),
        Mood::Stumbles(after),
        Mood::Stumbles(after),
        Mood::Fails(after),
        Mood::CannotStart,
        Mood::CannotStart,
        Mood::Deaf,
    ]);
    moods
}
