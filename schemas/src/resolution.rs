//! Avro's schema resolution: rewrites the datum of a writer's schema for a reader's schema
//! (<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>), from bytes to bytes.
//!
//! The library resolves through its `Value`, with three defects: it reads a truncated payload as
//! nulls, it gives a renamed field its default instead of the value under the alias, and it
//! distinguishes the records of a union by their fields only. Here a pair of schemas is resolved
//! once into steps, which rewrite each payload. [`can_read`](crate::can_read) uses the same steps.

use crate::Incompatibility;
use crate::avro_types::Node;
use crate::datum::{DatumError, DatumReader, put_bytes, put_index, put_long};
use crate::resolver::{Field, FieldSource, ResolutionStep, Resolver};

/// How to rewrite the datum of one schema for another.
pub(crate) struct Resolution {
    step: ResolutionStep,
    reasons: Vec<Incompatibility>,
}

/// Why a payload cannot be rewritten.
pub(crate) enum ResolutionError {
    /// It is no datum of the writer's schema.
    Malformed(DatumError),
    /// The reader's schema cannot represent a value of the payload.
    Unresolvable(Incompatibility),
}

impl From<DatumError> for ResolutionError {
    fn from(error: DatumError) -> Self {
        Self::Malformed(error)
    }
}

impl Resolution {
    pub(crate) fn of(writer: Node, reader: Node) -> Self {
        let mut resolver = Resolver::default();
        let step = resolver.step(writer, reader);
        Self { step, reasons: resolver.into_reasons() }
    }

    /// Why some payloads cannot be rewritten; empty if all can.
    pub(crate) fn reasons(&self) -> &[Incompatibility] {
        &self.reasons
    }

    /// Rewrites one payload. An incomplete resolution rewrites the payloads that do not need the
    /// missing parts.
    pub(crate) fn rewrite(&self, payload: &[u8]) -> Result<Vec<u8>, ResolutionError> {
        let mut datum = DatumReader::new(payload);
        let mut out = Vec::with_capacity(payload.len());
        run(&self.step, &mut datum, &mut out)?;
        datum.finish()?;
        Ok(out)
    }
}

fn run(
    step: &ResolutionStep,
    datum: &mut DatumReader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ResolutionError> {
    match step {
        ResolutionStep::Nothing => {}
        ResolutionStep::Boolean => out.push(datum.boolean()?.into()),
        ResolutionStep::Int => put_long(out, datum.int()?.into()),
        ResolutionStep::Long => put_long(out, datum.long()?),
        ResolutionStep::LongToFloat => out.extend((datum.long()? as f32).to_le_bytes()),
        ResolutionStep::LongToDouble => out.extend((datum.long()? as f64).to_le_bytes()),
        ResolutionStep::FloatToDouble => {
            out.extend(f64::from(f32::from_le_bytes(datum.array()?)).to_le_bytes());
        }
        ResolutionStep::Take(bytes) => out.extend_from_slice(datum.take(*bytes)?),
        ResolutionStep::Bytes => put_bytes(out, datum.bytes()?),
        ResolutionStep::Text => put_bytes(out, datum.text()?.as_bytes()),
        ResolutionStep::Symbols(places) => {
            let index = datum.index(places.len())?;
            match places.get(index) {
                Some(Ok(place)) => put_index(out, *place),
                Some(Err(reason)) => return Err(ResolutionError::Unresolvable(reason.clone())),
                None => {}
            }
        }
        ResolutionStep::Items(item) => run_blocks(datum, out, |datum, out| run(item, datum, out))?,
        ResolutionStep::Entries(value) => run_blocks(datum, out, |datum, out| {
            put_bytes(out, datum.text()?.as_bytes());
            run(value, datum, out)
        })?,
        ResolutionStep::FromUnion(branches) => {
            let index = datum.index(branches.len())?;
            if let Some(branch) = branches.get(index) {
                run(branch, datum, out)?;
            }
        }
        ResolutionStep::IntoUnion(index, inner) => {
            put_index(out, *index);
            run(inner, datum, out)?;
        }
        ResolutionStep::Record(fields) => {
            fields.iter().try_for_each(|field| run_field(field, datum, out))?;
        }
        ResolutionStep::Reordered { read, write } => run_reordered(read, write, datum, out)?,
        ResolutionStep::Unresolvable(reason) => {
            return Err(ResolutionError::Unresolvable(reason.clone()));
        }
    }
    Ok(())
}

fn run_blocks(
    datum: &mut DatumReader<'_>,
    out: &mut Vec<u8>,
    mut run_item: impl FnMut(&mut DatumReader<'_>, &mut Vec<u8>) -> Result<(), ResolutionError>,
) -> Result<(), ResolutionError> {
    loop {
        let count = datum.block()?;
        // A count beyond the payload fails as truncated, at the first missing item.
        put_long(out, i64::try_from(count).unwrap_or(i64::MAX));
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            run_item(datum, out)?;
        }
    }
}

fn run_field(
    field: &Field,
    datum: &mut DatumReader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ResolutionError> {
    match field {
        Field::Copy(step) => run(step, datum, out)?,
        Field::Skip(step) => {
            let kept = out.len();
            run(step, datum, out)?;
            out.truncate(kept);
        }
        Field::Default(default) => out.extend_from_slice(default),
    }
    Ok(())
}

fn run_reordered(
    read: &[ResolutionStep],
    write: &[FieldSource],
    datum: &mut DatumReader<'_>,
    out: &mut Vec<u8>,
) -> Result<(), ResolutionError> {
    let mut pieces = Vec::with_capacity(read.len());
    for step in read {
        let mut piece = Vec::new();
        run(step, datum, &mut piece)?;
        pieces.push(piece);
    }
    for source in write {
        match source {
            FieldSource::Written(index) => out.extend(pieces.get(*index).into_iter().flatten()),
            FieldSource::Default(default) => out.extend_from_slice(default),
        }
    }
    Ok(())
}
