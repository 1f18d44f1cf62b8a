//! Rewrites the personal fields of a payload, and copies the rest.

use apache_avro::schema::RecordField;

use crate::avro_types::{Node, Shape};
use crate::datum::{DatumError, DatumReader, put_bytes, put_index, put_long};
use crate::personal::marks::is_marked;

/// Why a payload was not rewritten.
#[derive(Debug)]
pub(super) enum WalkError<E> {
    Datum(DatumError),
    Refused { path: String, reason: E },
}

impl<E> From<DatumError> for WalkError<E> {
    fn from(error: DatumError) -> Self {
        Self::Datum(error)
    }
}

/// The payload with each personal value replaced.
pub(super) fn rewrite<E>(
    root: Node,
    payload: &[u8],
    replace: impl FnMut(&str, &[u8]) -> Result<Vec<u8>, E>,
) -> Result<Vec<u8>, WalkError<E>> {
    let out = Vec::with_capacity(payload.len() * 2);
    let mut walk = Walk { datum: DatumReader::new(payload), out, path: Vec::new(), replace };
    walk.copy(root, Content::Plain)?;
    walk.datum.finish()?;
    Ok(walk.out)
}

/// The content of a field.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Content {
    Personal,
    Plain,
}

impl Content {
    fn of(field: &RecordField) -> Self {
        if is_marked(field) { Self::Personal } else { Self::Plain }
    }
}

struct Walk<'a, F> {
    datum: DatumReader<'a>,
    out: Vec<u8>,
    path: Vec<String>,
    replace: F,
}

impl<E, F: FnMut(&str, &[u8]) -> Result<Vec<u8>, E>> Walk<'_, F> {
    fn copy(&mut self, node: Node, content: Content) -> Result<(), WalkError<E>> {
        match node.shape() {
            Shape::Null => {}
            Shape::Boolean => self.copy_bytes(1)?,
            Shape::Int | Shape::Long => put_long(&mut self.out, self.datum.long()?),
            Shape::Float => self.copy_bytes(4)?,
            Shape::Double => self.copy_bytes(8)?,
            Shape::Bytes if content == Content::Personal => self.replace()?,
            Shape::Bytes | Shape::String => put_bytes(&mut self.out, self.datum.bytes()?),
            Shape::Fixed(fixed) => self.copy_bytes(fixed.size)?,
            Shape::Enum(symbols) => {
                put_index(&mut self.out, self.datum.index(symbols.symbols.len())?);
            }
            Shape::Union(branches) => {
                let index = self.datum.index(branches.len())?;
                put_index(&mut self.out, index);
                if let Some(branch) = branches.get(index) {
                    self.copy(branch, content)?;
                }
            }
            Shape::Array(items) => {
                self.copy_blocks(items, content, |_walk, index| Ok(index.to_string()))?;
            }
            Shape::Map(values) => self.copy_blocks(values, content, |walk, _index| {
                let key = walk.datum.text()?;
                put_bytes(&mut walk.out, key.as_bytes());
                Ok(key.to_owned())
            })?,
            Shape::Record(fields) => {
                for (field, inner) in fields.iter() {
                    self.path.push(field.name.clone());
                    self.copy(inner, Content::of(field))?;
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    fn copy_bytes(&mut self, count: usize) -> Result<(), DatumError> {
        self.out.extend_from_slice(self.datum.take(count)?);
        Ok(())
    }

    fn replace(&mut self) -> Result<(), WalkError<E>> {
        let path = self.path.join(".");
        let value = self.datum.bytes()?;
        match (self.replace)(&path, value) {
            Ok(replaced) => put_bytes(&mut self.out, &replaced),
            Err(reason) => return Err(WalkError::Refused { path, reason }),
        }
        Ok(())
    }

    /// An array or a map, in blocks of the same counts.
    fn copy_blocks(
        &mut self,
        inner: Node,
        content: Content,
        mut name: impl FnMut(&mut Self, u64) -> Result<String, DatumError>,
    ) -> Result<(), WalkError<E>> {
        let mut index = 0;
        loop {
            let count = self.datum.block()?;
            put_long(
                &mut self.out,
                i64::try_from(count).map_err(|_longer| DatumError::LongNumber)?,
            );
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                let name = name(self, index)?;
                self.path.push(name);
                self.copy(inner, content)?;
                self.path.pop();
                index += 1;
            }
        }
    }
}
