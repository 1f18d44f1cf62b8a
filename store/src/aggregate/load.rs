//! Loading: states from their streams.

use futures_util::future::try_join_all;

use crate::aggregate::as_of::AsOf;
use crate::aggregate::fold::{Fold, Folded};
use crate::aggregate::{Aggregate, Loaded};
use crate::error::Error;
use crate::event_store::sealed::Backend;
use crate::stream::{StreamName, Version};

/// Loads one aggregate: the events behind `after`, to the end of the stream or to a moment.
pub(crate) async fn load<A: Aggregate>(
    store: &impl Backend,
    stream: &StreamName,
    after: Option<Version>,
    until: Option<AsOf>,
) -> Result<Loaded<A>, Error> {
    let mut state = A::default();
    let mut folded = Folded { version: after, ..Folded::nothing(stream) };
    if after.is_none() {
        folded.restore(store, &mut state, until).await?;
    }
    folded.advance(store, &mut state, until).await?;
    Ok(Loaded { state, version: folded.version, removed: folded.removed })
}

/// Loads an aggregate and saves its state; the version of the snapshot.
pub(crate) async fn save<A: Aggregate>(
    store: &impl Backend,
    stream: &StreamName,
) -> Result<Option<Version>, Error> {
    let mut state = A::default();
    let mut folded = Folded::nothing(stream);
    folded.restore(store, &mut state, None).await?;
    folded.advance(store, &mut state, None).await?;
    let Some(snapshot) = folded.to_snapshot(&state) else { return Ok(None) };
    let stream = stream.clone();
    let snapshot = snapshot.map_err(|source| Error::Encode { stream, source })?;
    store.write_snapshot(&snapshot).await?;
    Ok(Some(snapshot.version))
}

/// Begins with the snapshots of all streams that have one.
pub(crate) async fn restore_all(
    store: &impl Backend,
    states: Vec<&mut dyn Fold>,
    folded: &mut [Folded],
) -> Result<(), Error> {
    let restored =
        folded.iter_mut().zip(states).map(|(folded, state)| folded.restore(store, state, None));
    try_join_all(restored).await.map(drop)
}

/// Applies the new events of all streams, up to one moment at which all of them are read.
///
/// The versions of several streams are read in one statement. A state up to these versions is that
/// of this statement's snapshot, whenever its events are read.
pub(crate) async fn advance_all(
    store: &impl Backend,
    states: Vec<&mut dyn Fold>,
    folded: &mut [Folded],
) -> Result<(), Error> {
    if let ([folded], [_]) = (&mut *folded, states.as_slice()) {
        for state in states {
            folded.advance(store, state, None).await?;
        }
        return Ok(());
    }
    let streams: Vec<StreamName> = folded.iter().map(|folded| folded.stream.clone()).collect();
    let versions = store.versions(&streams).await?;
    let advanced =
        folded.iter_mut().zip(states).zip(versions).filter_map(|((folded, state), version)| {
            let until = AsOf::Version(version?);
            Some(folded.advance(store, state, Some(until)))
        });
    try_join_all(advanced).await.map(drop)
}
