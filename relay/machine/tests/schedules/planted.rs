//! Planted bugs. The schedules must catch each of them: a checker that catches none proves nothing.

use crate::random::{Schedule, first_broken};

/// The kind of bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Plant {
    NobodyIsFenced,
    OnlyTheFirstIdIsFenced,
    FencingDoesNotAskWhoOwns,
    ExpiryForgetsToFence,
    ExpiryForgetsEarlierFences,
    EveryLeavingIsClean,
    TakingStealsWhatIsOwned,
    LossOfTheLeaseIsNotHeard,
    CheckpointsAreReadBeforeFencing,
    CheckpointsAreReadWithoutWaiting,
    AnUnknownCommitCountsAsDone,
    OpeningFencesNothing,
    TheSecondDoesNotWait,
    RepliesFromBeforeAreHeard,
    ARestNeverEnds,
    FreeShardsAreNotSeen,
    HoldsBeginWhereTheReaderWas,
    ProgressIsLeftOut,
    NotesDoNotAskWhoOwns,
    HoldingDoesNotAskWhoOwns,
    ProgressIsForgottenBeforeItIsNoted,
    HoldsAreReadBeforeTheCheckpoint,
    WhatIsHeldIsNotPassedOver,
    LateNotesCount,
    LateHoldsCount,
    TakingUpIsNotAlwaysNoted,
}

impl Plant {
    /// Whether only schedules with refused events can catch it.
    pub(crate) fn is_of_holds(self) -> bool {
        OF_HOLDS.contains(&self)
    }
}

const ALL: [Plant; 16] = [
    Plant::NobodyIsFenced,
    Plant::OnlyTheFirstIdIsFenced,
    Plant::FencingDoesNotAskWhoOwns,
    Plant::ExpiryForgetsToFence,
    Plant::ExpiryForgetsEarlierFences,
    Plant::EveryLeavingIsClean,
    Plant::TakingStealsWhatIsOwned,
    Plant::LossOfTheLeaseIsNotHeard,
    Plant::CheckpointsAreReadBeforeFencing,
    Plant::CheckpointsAreReadWithoutWaiting,
    Plant::AnUnknownCommitCountsAsDone,
    Plant::OpeningFencesNothing,
    Plant::TheSecondDoesNotWait,
    Plant::RepliesFromBeforeAreHeard,
    Plant::ARestNeverEnds,
    Plant::FreeShardsAreNotSeen,
];

const OF_HOLDS: [Plant; 10] = [
    Plant::HoldsBeginWhereTheReaderWas,
    Plant::ProgressIsLeftOut,
    Plant::NotesDoNotAskWhoOwns,
    Plant::HoldingDoesNotAskWhoOwns,
    Plant::ProgressIsForgottenBeforeItIsNoted,
    Plant::HoldsAreReadBeforeTheCheckpoint,
    Plant::WhatIsHeldIsNotPassedOver,
    Plant::LateNotesCount,
    Plant::LateHoldsCount,
    Plant::TakingUpIsNotAlwaysNoted,
];

/// The rarest needs some hundred thousand schedules.
const SCHEDULES_MAX: u64 = 400_000;

#[test]
fn every_planted_bug_is_caught_by_some_schedule() {
    let mut missed = Vec::new();
    for plant in ALL.into_iter().chain(OF_HOLDS) {
        match first_broken(0..SCHEDULES_MAX, Some(plant)) {
            Some((seed, broken)) => println!("{plant:?}: seed {seed}: {broken}"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn a_broken_schedule_is_told_as_a_history() {
    let (seed, _) = first_broken(0..SCHEDULES_MAX, Some(Plant::TakingStealsWhatIsOwned)).unwrap();
    let history = Schedule::new(seed, Some(Plant::TakingStealsWhatIsOwned)).history();
    assert!(history.lines().any(|line| line.contains("AcquireShards([Shard(0)")), "{history}");
    assert!(history.lines().last().unwrap().contains("should follow"), "{history}");
}
