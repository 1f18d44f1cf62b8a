//! Reads and writes the primitives of Avro's binary encoding
//! (<https://avro.apache.org/docs/1.12.0/specification/#binary-encoding>).

use thiserror::Error;

/// Why bytes are no datum of a schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum DatumError {
    #[error("the payload is cut off")]
    CutOff,
    #[error("a number is longer than 64 bits")]
    LongNumber,
    #[error("{0} is no int")]
    NoInt(i64),
    #[error("{0} is no boolean")]
    NoBoolean(u8),
    #[error("{0} is no length")]
    NoLength(i64),
    #[error("{index} is none of the {count} branches or symbols")]
    NoBranch { index: i64, count: usize },
    #[error("text is not UTF-8")]
    NoText,
    #[error("{0} bytes are left after the last field")]
    LeftOver(usize),
}

/// The unread rest of a datum.
pub(crate) struct DatumReader<'a>(&'a [u8]);

impl<'a> DatumReader<'a> {
    pub(crate) fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(crate) fn finish(self) -> Result<(), DatumError> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(DatumError::LeftOver(extra)),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], DatumError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(DatumError::CutOff)?;
        self.0 = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DatumError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DatumError::CutOff)?;
        self.0 = rest;
        Ok(*taken)
    }

    pub(crate) fn boolean(&mut self) -> Result<bool, DatumError> {
        match self.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(DatumError::NoBoolean(other)),
        }
    }

    /// A zig-zag variable-length number.
    pub(crate) fn long(&mut self) -> Result<i64, DatumError> {
        let mut bits = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            bits |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                // Zig-zag: the lowest bit inverts the others.
                let sign = (bits & 1).cast_signed().wrapping_neg();
                return Ok((bits >> 1).cast_signed() ^ sign);
            }
        }
        Err(DatumError::LongNumber)
    }

    pub(crate) fn int(&mut self) -> Result<i32, DatumError> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_out_of_range| DatumError::NoInt(number))
    }

    /// The index of a union's branch or of an enum's symbol.
    pub(crate) fn index(&mut self, count: usize) -> Result<usize, DatumError> {
        let index = self.long()?;
        let known = usize::try_from(index).ok().filter(|known| *known < count);
        known.ok_or(DatumError::NoBranch { index, count })
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DatumError> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_negative| DatumError::NoLength(length))?;
        self.take(length)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, DatumError> {
        std::str::from_utf8(self.bytes()?).map_err(|_bad_bytes| DatumError::NoText)
    }

    /// The number of items in the next block of an array or map; 0 ends it.
    pub(crate) fn block(&mut self) -> Result<u64, DatumError> {
        let count = self.long()?;
        if count < 0 {
            // A negative count precedes the size of the block, which lets a reader skip it.
            self.long()?;
        }
        Ok(count.unsigned_abs())
    }
}

pub(crate) fn put_long(out: &mut Vec<u8>, number: i64) {
    let mut bits = ((number << 1) ^ (number >> 63)).cast_unsigned();
    while bits > 0x7f {
        let [low, ..] = bits.to_le_bytes();
        out.push(low | 0x80);
        bits >>= 7;
    }
    let [last, ..] = bits.to_le_bytes();
    out.push(last);
}

pub(crate) fn put_index(out: &mut Vec<u8>, index: usize) {
    // No slice is longer than isize::MAX.
    put_long(out, i64::try_from(index).unwrap_or(i64::MAX));
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_index(out, bytes.len());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_survive_at_every_length() {
        let edges = (0..64).flat_map(|shift| [i64::MAX >> shift, i64::MIN >> shift, 1 << shift]);
        for number in edges.chain([0, -1, 63, 64, -64, -65]) {
            let mut out = Vec::new();
            put_long(&mut out, number);
            let mut datum = DatumReader::new(&out);
            assert_eq!(datum.long(), Ok(number));
            assert_eq!(datum.finish(), Ok(()));
        }
    }

    #[test]
    fn a_number_that_never_ends_is_refused() {
        assert_eq!(DatumReader::new(&[0x80; 11]).long(), Err(DatumError::LongNumber));
        assert_eq!(DatumReader::new(&[0x80; 3]).long(), Err(DatumError::CutOff));
    }

    #[test]
    fn a_length_beyond_the_payload_takes_no_memory() {
        let mut claim = Vec::new();
        put_long(&mut claim, i64::MAX);
        assert_eq!(DatumReader::new(&claim).bytes(), Err(DatumError::CutOff));
        assert_eq!(DatumReader::new(&[1]).bytes(), Err(DatumError::NoLength(-1)));
    }
}
