//! Numbers that JSON cannot express: NaN and the infinities.

use crate::avro_types::{Node, Shape};
use crate::datum::{DatumError, DatumReader};

/// Whether values of a schema contain real numbers.
pub(crate) fn has_reals(node: Node) -> bool {
    match node.shape() {
        Shape::Float | Shape::Double => true,
        Shape::Array(inner) | Shape::Map(inner) => has_reals(inner),
        Shape::Union(branches) => branches.iter().any(has_reals),
        Shape::Record(fields) => fields.iter().any(|(_, node)| has_reals(node)),
        Shape::Null
        | Shape::Boolean
        | Shape::Int
        | Shape::Long
        | Shape::Bytes
        | Shape::String
        | Shape::Fixed(_)
        | Shape::Enum(_) => false,
    }
}

/// The path of the first number in a datum that is not finite.
pub(crate) fn not_finite(root: Node, payload: &[u8]) -> Option<String> {
    let mut search = Search { datum: DatumReader::new(payload), path: Vec::new(), found: None };
    // A malformed datum is found where it is decoded.
    search.node(root).ok().and(search.found)
}

struct Search<'a> {
    datum: DatumReader<'a>,
    path: Vec<&'static str>,
    found: Option<String>,
}

impl Search<'_> {
    fn node(&mut self, node: Node) -> Result<(), DatumError> {
        match node.shape() {
            Shape::Null => {}
            Shape::Boolean => {
                self.datum.boolean()?;
            }
            Shape::Int => {
                self.datum.int()?;
            }
            Shape::Long => {
                self.datum.long()?;
            }
            Shape::Float => {
                let real = f32::from_le_bytes(self.datum.array()?);
                self.check(real.into());
            }
            Shape::Double => {
                let real = f64::from_le_bytes(self.datum.array()?);
                self.check(real);
            }
            Shape::Bytes => {
                self.datum.bytes()?;
            }
            Shape::String => {
                self.datum.text()?;
            }
            Shape::Fixed(fixed) => {
                self.datum.take(fixed.size)?;
            }
            Shape::Enum(of) => {
                self.datum.index(of.symbols.len())?;
            }
            Shape::Array(items) => self.blocks(items, |_datum| Ok(()))?,
            Shape::Map(values) => self.blocks(values, |datum| datum.text().map(drop))?,
            Shape::Union(branches) => {
                let index = self.datum.index(branches.len())?;
                branches.get(index).map_or(Ok(()), |branch| self.node(branch))?;
            }
            Shape::Record(fields) => {
                for (field, node) in fields.iter() {
                    self.path.push(&field.name);
                    self.node(node)?;
                    self.path.pop();
                }
            }
        }
        Ok(())
    }

    /// Reads an array or a map: `read_key` reads the key of an item.
    fn blocks(
        &mut self,
        inner: Node,
        read_key: impl Fn(&mut DatumReader<'_>) -> Result<(), DatumError>,
    ) -> Result<(), DatumError> {
        loop {
            let count = self.datum.block()?;
            if count == 0 {
                return Ok(());
            }
            for _ in 0..count {
                read_key(&mut self.datum)?;
                self.node(inner)?;
            }
        }
    }

    fn check(&mut self, real: f64) {
        if !real.is_finite() && self.found.is_none() {
            self.found = Some(self.path.join("."));
        }
    }
}
