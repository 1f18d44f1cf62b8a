//! Planted bugs. The schedules must catch each of them: a checker that catches none proves nothing.

use crate::random::{Schedule, Theme, first_broken};
use crate::world::Going;

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
    BusyIdsCountAsFenced,
    OnlyTheFirstPairIsFenced,
}

/// Bugs that need no disturbance.
const OF_RELAYS: [Plant; 15] = [
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

/// Bugs that need refused events.
const OF_QUARANTINE: [Plant; 10] = [
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

/// Bugs that need partitions with too few replicas.
const OF_SHORTAGES: [Plant; 3] = [
    Plant::BusyIdsCountAsFenced,
    Plant::OnlyTheFirstPairIsFenced,
    Plant::CheckpointsAreReadWithoutWaiting,
];

/// Bugs that do no harm unless the database goes back, or a deadline ends a page, with the
/// disturbance that shows them.
const OF_HISTORIES: [(Theme, Plant); 16] = [
    (Theme::HalfReadPages, Plant::WhatAReadHadDoneIsLost),
    (Theme::History(Going::Crash), Plant::TransactionIdAloneSaysSeen),
    (Theme::History(Going::Crash), Plant::HistoryIsVerifiedAtTheStartOnly),
    (Theme::History(Going::Crash), Plant::EndsOfWindowsAreNotVerified),
    (Theme::History(Going::Crash), Plant::TheReaderReadsAnyHistory),
    (Theme::History(Going::Promotion), Plant::IdentityInsteadOfEvidence),
    (Theme::History(Going::Promotion), Plant::LostSessionsAreNotFenced),
    (Theme::History(Going::Promotion), Plant::SessionsOutliveTheirIncarnation),
    (Theme::History(Going::Promotion), Plant::CopiesGoIntoAnyHistory),
    (Theme::History(Going::Restore), Plant::OnlyTheLastEventIsVerified),
    (Theme::All(Going::Restore), Plant::ALaterGenerationIsNotMissed),
    (Theme::All(Going::Restore), Plant::GenerationsAreGivenAgain),
    (Theme::History(Going::Restore), Plant::RebaseGoesByTheHighestEnd),
    (Theme::All(Going::Restore), Plant::LostHoldsAreNotMissed),
    (Theme::All(Going::Restore), Plant::RebaseForgetsProgress),
    (Theme::History(Going::Move), Plant::NothingIsSettled),
];

/// The rarest needs some hundred thousand schedules.
const SCHEDULES_MAX: u64 = 400_000;
const SCHEDULES_WITHOUT: u64 = 4_000;

#[test]
fn every_planted_bug_is_caught_by_some_schedule() {
    catch_all(OF_RELAYS.map(|plant| (Theme::Relays, plant)));
    catch_all([(Theme::Zombies, Plant::FencingDoesNotAskWhoOwns)]);
}

#[test]
fn every_planted_bug_of_quarantine_is_caught_by_some_schedule() {
    catch_all(OF_QUARANTINE.map(|plant| (Theme::Quarantine, plant)));
}

#[test]
fn every_planted_bug_of_shortages_is_caught_by_some_schedule() {
    catch_all(OF_SHORTAGES.map(|plant| (Theme::Shortages, plant)));
}

#[test]
fn every_planted_bug_of_histories_is_caught_by_some_schedule() {
    catch_all(OF_HISTORIES);
}

fn catch_all(plants: impl IntoIterator<Item = (Theme, Plant)>) {
    let mut missed = Vec::new();
    for (theme, plant) in plants {
        match first_broken(0..SCHEDULES_MAX, |_| theme, Some(plant)) {
            Some((seed, broken)) => println!("{plant:?}: {theme:?}, seed {seed}: {broken}"),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

#[test]
fn no_planted_bug_of_histories_is_caught_where_the_database_keeps_its_history() {
    for (_, plant) in OF_HISTORIES {
        let found = first_broken(0..SCHEDULES_WITHOUT, Theme::with_a_fixed_history, Some(plant));
        assert!(found.is_none(), "{plant:?}: {found:?}");
    }
}

#[test]
fn a_broken_schedule_is_told_as_a_history() {
    let plant = Some(Plant::TakingStealsWhatIsOwned);
    let (seed, _) = first_broken(0..SCHEDULES_MAX, |_| Theme::Relays, plant).unwrap();
    let history = Schedule::new(seed, Theme::Relays, plant).history();
    assert!(history.lines().any(|line| line.contains("AcquireShards([Shard(0)")), "{history}");
    assert!(history.lines().last().unwrap().contains("should follow"), "{history}");
}
