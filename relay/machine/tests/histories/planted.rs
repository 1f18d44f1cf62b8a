//! Planted bugs. The schedules must catch each of them: a checker that catches none proves nothing.

use crate::random::{Schedule, first_broken, first_broken_without_histories};

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
    TransactionIdAloneSaysSeen,
    NothingIsSettled,
    CopiesGoIntoAnyHistory,
    OnlyTheLastEventIsVerified,
    HistoryIsVerifiedAtTheStartOnly,
    IdentityInsteadOfEvidence,
    EndsOfWindowsAreNotVerified,
    LostHoldsAreNotMissed,
    ALaterGenerationIsNotMissed,
    SessionsOutliveTheirIncarnation,
    LostSessionsAreNotFenced,
    TheReaderReadsAnyHistory,
    RebaseGoesByTheHighestEnd,
    RebaseForgetsProgress,
    GenerationsAreGivenAgain,
    WhatAReadHadDoneIsLost,
}

impl Plant {
    /// Whether only schedules with refused events can catch it.
    pub(crate) fn is_of_holds(self) -> bool {
        OF_HOLDS.contains(&self)
    }

    /// Whether only schedules in which the database goes back can catch it.
    pub(crate) fn is_of_histories(self) -> bool {
        OF_HISTORIES.contains(&self) || RARE.contains(&self)
    }
}

const ALL: [Plant; 15] = [
    Plant::NobodyIsFenced,
    Plant::OnlyTheFirstIdIsFenced,
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

const OF_HISTORIES: [Plant; 10] = [
    Plant::CopiesGoIntoAnyHistory,
    Plant::HistoryIsVerifiedAtTheStartOnly,
    Plant::EndsOfWindowsAreNotVerified,
    Plant::LostHoldsAreNotMissed,
    Plant::TransactionIdAloneSaysSeen,
    Plant::NothingIsSettled,
    Plant::IdentityInsteadOfEvidence,
    Plant::LostSessionsAreNotFenced,
    Plant::GenerationsAreGivenAgain,
    Plant::WhatAReadHadDoneIsLost,
];

/// No schedule has caught these so far: they need several rare steps one after the other.
const RARE: [Plant; 6] = [
    Plant::OnlyTheLastEventIsVerified,
    Plant::ALaterGenerationIsNotMissed,
    Plant::SessionsOutliveTheirIncarnation,
    Plant::TheReaderReadsAnyHistory,
    Plant::RebaseGoesByTheHighestEnd,
    Plant::RebaseForgetsProgress,
];

/// The rarest needs some hundred thousand schedules.
const SCHEDULES_MAX: u64 = 400_000;
const SCHEDULES_WITHOUT: u64 = 4_000;

#[test]
fn every_planted_bug_is_caught_by_some_schedule() {
    catch_all(&ALL);
}

#[test]
fn every_planted_bug_of_holds_is_caught_by_some_schedule() {
    catch_all(&OF_HOLDS);
}

#[test]
fn every_planted_bug_of_histories_is_caught_by_some_schedule() {
    catch_all(&OF_HISTORIES);
}

fn catch_all(plants: &[Plant]) {
    let mut missed = Vec::new();
    for plant in plants {
        match first_broken(0..SCHEDULES_MAX, Some(*plant)) {
            Some((seed, broken)) => println!("{plant:?}: seed {seed}: {broken}"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// These bugs do no harm unless the database goes back, or a deadline ends a page.
#[test]
fn no_planted_bug_of_histories_is_caught_where_the_database_keeps_its_history() {
    for plant in OF_HISTORIES.into_iter().chain(RARE) {
        let found = first_broken_without_histories(0..SCHEDULES_WITHOUT, plant);
        assert!(found.is_none(), "{plant:?}: {found:?}");
    }
}

#[test]
fn a_broken_schedule_is_told_as_a_history() {
    let (seed, _) = first_broken(0..SCHEDULES_MAX, Some(Plant::TakingStealsWhatIsOwned)).unwrap();
    let history = Schedule::new(seed, Some(Plant::TakingStealsWhatIsOwned)).history();
    assert!(history.lines().any(|line| line.contains("AcquireShards([Shard(0)")), "{history}");
    assert!(history.lines().last().unwrap().contains("should follow"), "{history}");
}
