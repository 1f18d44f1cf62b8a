//! Reading with one schema what another one wrote: Avro's schema resolution
//! (<https://avro.apache.org/docs/1.12.0/specification/#schema-resolution>), from bytes to bytes.
//!
//! The library resolves through its `Value`, and for our purpose not well enough: a payload that is
//! cut off reads as nulls, a renamed field is not found by its alias and gets the default, and two
//! records of a union are told apart by their fields only. Here a pair of schemas becomes a plan
//! once, every payload is then rewritten by it, and [`can_read`](crate::can_read) asks the same
//! plan.

use crate::datum::{Datum, Fault, put_bytes, put_index, put_long};
use crate::plan::{Field, Planner, Source, Step};
use crate::{DecodeError, Incompatibility, Incompatible, Schema};

/// How what one schema wrote becomes what another one reads.
pub(crate) struct Conversion {
    writer: Schema,
    reader: Schema,
    step: Step,
    reasons: Vec<Incompatibility>,
    is_identity: bool,
}

/// Why a payload did not become another.
enum Failure {
    Fault(Fault),
    /// The payload says something for which the reader's schema has no place.
    Homeless(Incompatibility),
}

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl Conversion {
    pub(crate) fn plan(writer: Schema, reader: Schema) -> Self {
        let mut planner = Planner::default();
        let step = planner.step(writer.root(), reader.root());
        let is_identity = writer.means_the_same_as(&reader);
        Self { writer, reader, step, reasons: planner.into_reasons(), is_identity }
    }

    /// Whether both schemas mean the same: there is nothing to rewrite.
    pub(crate) fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// Whether the reader's schema has a place for whatever the writer's can say.
    pub(crate) fn complete(&self) -> Result<(), Incompatible> {
        match self.reasons.as_slice() {
            [] => Ok(()),
            reasons => Err(self.incompatible(reasons.to_vec())),
        }
    }

    /// Rewrites one payload. Of an incomplete conversion, those payloads work that do not need what
    /// is missing.
    pub(crate) fn run(&self, payload: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut datum = Datum::new(payload);
        let mut out = Vec::with_capacity(payload.len());
        let ran = run(&self.step, &mut datum, &mut out);
        match ran.and_then(|()| Ok(datum.finish()?)) {
            Ok(()) => Ok(out),
            Err(Failure::Fault(fault)) => Err(self.writer.malformed(fault)),
            Err(Failure::Homeless(reason)) => Err(self.incompatible(vec![reason]).into()),
        }
    }

    fn incompatible(&self, reasons: Vec<Incompatibility>) -> Incompatible {
        let (reader, writer) = (self.reader.to_string(), self.writer.to_string());
        Incompatible { reader, writer, reasons }
    }
}

fn run(step: &Step, datum: &mut Datum<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
    match step {
        Step::Nothing => {}
        Step::Boolean => out.push(datum.boolean()?.into()),
        Step::Int => put_long(out, datum.int()?.into()),
        Step::Long => put_long(out, datum.long()?),
        Step::LongToFloat => out.extend((datum.long()? as f32).to_le_bytes()),
        Step::LongToDouble => out.extend((datum.long()? as f64).to_le_bytes()),
        Step::FloatToDouble => {
            out.extend(f64::from(f32::from_le_bytes(datum.array()?)).to_le_bytes());
        }
        Step::Take(bytes) => out.extend_from_slice(datum.take(*bytes)?),
        Step::Bytes => put_bytes(out, datum.bytes()?),
        Step::Text => put_bytes(out, datum.text()?.as_bytes()),
        Step::Symbols(places) => {
            let index = datum.index(places.len())?;
            match places.get(index) {
                Some(Ok(place)) => put_index(out, *place),
                Some(Err(reason)) => return Err(Failure::Homeless(reason.clone())),
                None => {}
            }
        }
        Step::Items(item) => run_blocks(datum, out, |datum, out| run(item, datum, out))?,
        Step::Entries(value) => run_blocks(datum, out, |datum, out| {
            put_bytes(out, datum.text()?.as_bytes());
            run(value, datum, out)
        })?,
        Step::FromUnion(branches) => {
            let index = datum.index(branches.len())?;
            if let Some(branch) = branches.get(index) {
                run(branch, datum, out)?;
            }
        }
        Step::IntoUnion(index, inner) => {
            put_index(out, *index);
            run(inner, datum, out)?;
        }
        Step::Record(fields) => {
            fields.iter().try_for_each(|field| run_field(field, datum, out))?;
        }
        Step::Reordered { read, write } => run_reordered(read, write, datum, out)?,
        Step::Never(reason) => return Err(Failure::Homeless(reason.clone())),
    }
    Ok(())
}

fn run_blocks(
    datum: &mut Datum<'_>,
    out: &mut Vec<u8>,
    mut run_item: impl FnMut(&mut Datum<'_>, &mut Vec<u8>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    loop {
        let count = datum.block()?;
        // A count that no payload can hold ends as cut off, at the first item that is not there.
        put_long(out, i64::try_from(count).unwrap_or(i64::MAX));
        if count == 0 {
            return Ok(());
        }
        for _ in 0..count {
            run_item(datum, out)?;
        }
    }
}

fn run_field(field: &Field, datum: &mut Datum<'_>, out: &mut Vec<u8>) -> Result<(), Failure> {
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
    read: &[Step],
    write: &[Source],
    datum: &mut Datum<'_>,
    out: &mut Vec<u8>,
) -> Result<(), Failure> {
    let mut pieces = Vec::with_capacity(read.len());
    for step in read {
        let mut piece = Vec::new();
        run(step, datum, &mut piece)?;
        pieces.push(piece);
    }
    for source in write {
        match source {
            Source::Written(index) => out.extend(pieces.get(*index).into_iter().flatten()),
            Source::Default(default) => out.extend_from_slice(default),
        }
    }
    Ok(())
}
