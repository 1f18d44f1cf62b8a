//! An event whose personal values are about to be sealed.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::personal::key::SubjectKey;
use crate::personal::place::{ERASED, FieldPlace, OPEN, SEALED};
use crate::personal::walk::{self, WalkError};
use crate::{EncodeError, EncodedEvent, EventSet};

/// An open value of the event that is being encoded.
struct Value {
    key: SubjectKey,
    plain: Zeroizing<Vec<u8>>,
    /// Whether all of its numbers are in `plain`; NaN and the infinities are `null` there.
    is_finite: bool,
}

/// Why a personal field is refused.
enum Fault {
    NotFinite,
    Other(&'static str),
}

impl From<&'static str> for Fault {
    fn from(reason: &'static str) -> Self {
        Self::Other(reason)
    }
}

thread_local! {
    /// The open values of the event that this thread encodes; none while it encodes no event.
    static VALUES: RefCell<Option<Vec<Value>>> = const { RefCell::new(None) };
}

/// Whether this thread encodes an event.
pub(super) fn is_encoding() -> bool {
    VALUES.with_borrow(Option::is_some)
}

/// Notes an open value, and returns its reference in the payload.
pub(super) fn note(
    key: &SubjectKey,
    plain: Zeroizing<Vec<u8>>,
    is_finite: bool,
) -> Option<Vec<u8>> {
    VALUES.with_borrow_mut(|values| {
        let values = values.as_mut()?;
        let index = u32::try_from(values.len()).ok()?;
        values.push(Value { key: key.clone(), plain, is_finite });
        Some([&[OPEN][..], &index.to_be_bytes()].concat())
    })
}

/// Runs an encoding, and returns its open values.
fn collect<T>(encode: impl FnOnce() -> T) -> (T, Vec<Value>) {
    /// Also after a panic, so that no later event gets the values.
    struct Restore(Option<Vec<Value>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            VALUES.set(self.0.take());
        }
    }
    let before = Restore(VALUES.replace(Some(Vec::new())));
    let encoded = encode();
    let values = VALUES.take().unwrap_or_default();
    drop(before);
    (encoded, values)
}

/// An encoded event with open personal values, which [`seal`](Self::seal) seals for an event id.
///
/// Most events have no personal values: for them it costs nothing.
#[derive(Clone)]
pub struct Draft {
    /// The event. Its payload has a reference in the place of each personal value.
    encoded: EncodedEvent,
    values: Arc<[Value]>,
}

impl Draft {
    /// Encodes an event.
    ///
    /// # Errors
    /// As [`EventSet::encode`], also for a personal value with a number that is not finite;
    /// [`EncodeError::Personal`] if a personal value is in a field that its schema does not mark,
    /// or if a marked field has another value.
    pub fn of<E: EventSet>(event: &E) -> Result<Self, EncodeError> {
        let (encoded, values) = collect(|| event.encode());
        let encoded = encoded?;
        let draft = Self { encoded, values: values.into() };
        if let Some(field) = draft.encoded.schema.misplaced_personal_fields().first() {
            let reason = "it is marked as personal, and only bytes can be sealed";
            return Err(draft.refused(field, reason));
        }
        draft.check()?;
        Ok(draft)
    }

    /// Each open value must be in a marked field, and each marked field have a personal value.
    fn check(&self) -> Result<(), EncodeError> {
        let mut placed = vec![false; self.values.len()];
        let note = |_path: &str, value: &[u8]| {
            if value == [ERASED] {
                return Ok(Vec::new());
            }
            let index = reference(value)?.unwrap_or(usize::MAX);
            let place = placed.get_mut(index).zip(self.values.get(index));
            let (placed, value) = place.ok_or("it has bytes that are no personal value")?;
            *placed = true;
            if value.is_finite { Ok(Vec::new()) } else { Err(Fault::NotFinite) }
        };
        if self.encoded.schema.has_personal_fields() {
            self.rewrite(note)?;
        }
        if placed.iter().all(|placed| *placed) {
            return Ok(());
        }
        let reason = "a personal value is in a field that the schema does not mark";
        Err(self.refused("", reason))
    }

    /// The event; its payload has references in the place of open values.
    #[must_use]
    pub fn encoded(&self) -> &EncodedEvent {
        &self.encoded
    }

    /// Whether the event has open values.
    #[must_use]
    pub fn is_personal(&self) -> bool {
        !self.values.is_empty()
    }

    /// The event, sealed for this id, and the draft if it has open values.
    ///
    /// # Errors
    /// As [`seal`](Self::seal).
    pub fn into_sealed(
        self,
        event_id: [u8; 16],
    ) -> Result<(EncodedEvent, Option<Self>), EncodeError> {
        if !self.is_personal() {
            return Ok((self.encoded, None));
        }
        let encoded = EncodedEvent { payload: self.seal(event_id)?, ..self.encoded.clone() };
        Ok((encoded, Some(self)))
    }

    /// The payload for an event with this id: each personal value is sealed.
    ///
    /// # Errors
    /// [`EncodeError::Personal`] for a value that is longer than AES-GCM allows.
    pub fn seal(&self, event_id: [u8; 16]) -> Result<Vec<u8>, EncodeError> {
        if !self.is_personal() {
            return Ok(self.encoded.payload.clone());
        }
        let event_type = self.encoded.event_type;
        self.rewrite(|path, value| {
            if value == [ERASED] {
                return Ok(value.to_vec());
            }
            let value = reference(value)?.and_then(|index| self.values.get(index));
            let value = value.ok_or("it has bytes that are no personal value")?;
            let place = FieldPlace { event_id, event_type, path }.authenticated(value.key.id());
            let sealed = value.key.seal(&place, &value.plain).ok_or("it is too long")?;
            Ok([&[SEALED], value.key.id().as_bytes(), &sealed].concat())
        })
    }

    fn rewrite(
        &self,
        replace: impl FnMut(&str, &[u8]) -> Result<Vec<u8>, Fault>,
    ) -> Result<Vec<u8>, EncodeError> {
        let EncodedEvent { schema, payload, .. } = &self.encoded;
        walk::rewrite(schema.root(), payload, replace).map_err(|error| match error {
            WalkError::Refused { path: field, reason: Fault::NotFinite } => {
                EncodeError::NotFinite { record: schema.full_name().to_owned(), field }
            }
            WalkError::Refused { path, reason: Fault::Other(reason) } => {
                self.refused(&path, reason)
            }
            WalkError::Datum(error) => self.refused("", &error.to_string()),
        })
    }

    fn refused(&self, field: &str, reason: &str) -> EncodeError {
        EncodeError::Personal {
            record: self.encoded.schema.full_name().to_owned(),
            field: field.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// The index of an open value, from its reference in the payload; none if there is no such index.
fn reference(value: &[u8]) -> Result<Option<usize>, &'static str> {
    let [OPEN, index @ ..] = value else {
        return Err(
            "it has neither an open nor an erased value: open the value of an event before \
             it gets into another one",
        );
    };
    let index = index.try_into().map(u32::from_be_bytes).ok();
    Ok(index.and_then(|index| usize::try_from(index).ok()))
}

/// Without the values.
impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft")
            .field("event_type", &self.encoded.event_type)
            .field("values", &self.values.len())
            .finish_non_exhaustive()
    }
}
