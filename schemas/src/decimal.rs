//! Exact decimal numbers: Avro's logical type `decimal`.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserialize, Deserializer, Visitor};
use serde::{Serialize, Serializer};
use thiserror::Error;

const DIGITS_MAX: u8 = 38;

/// An exact decimal number, such as an amount of money, with `SCALE` of its `PRECISION` digits
/// behind the point.
///
/// It is Avro's `{"type": "bytes", "logicalType": "decimal", "precision": P, "scale": S}`; with
/// `FIXED_BYTES` above 0, a `fixed` of that size. In JSON it is text, since many programs read a
/// JSON number as a binary fraction. [`check_fit`](crate::check_fit) compares precision and scale
/// with the schema. `PRECISION` is at most 38.
///
/// ```
/// use annals_schemas::Decimal;
///
/// type Euro = Decimal<12, 2>;
/// let price: Euro = "19.90".parse()?;
/// assert_eq!(price.unscaled(), 1990);
/// let two = price.checked_add(price).ok_or("too large")?;
/// assert_eq!(two.to_string(), "39.80");
/// assert!("0.001".parse::<Euro>().is_err());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Decimal<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize = 0>(i128);

/// A number that a [`Decimal`] cannot represent exactly.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{number} is no decimal({precision}, {scale})")]
pub struct DecimalError {
    /// The number, or the text.
    pub number: String,
    /// The digits of the type.
    pub precision: u8,
    /// Those behind the point.
    pub scale: u8,
}

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize>
    Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    const IS_LEGAL: () = {
        assert!(PRECISION >= 1 && PRECISION <= DIGITS_MAX, "a precision is from 1 to 38");
        assert!(SCALE <= PRECISION, "the scale is at most the precision");
        assert!(
            FIXED_BYTES == 0 || FIXED_BYTES >= bytes_of(PRECISION),
            "the fixed is too small for the precision"
        );
    };

    /// The number `unscaled` / 10^`SCALE`: cents, where the scale is 2.
    ///
    /// # Errors
    /// [`DecimalError`] for more than `PRECISION` digits.
    pub fn from_unscaled(unscaled: i128) -> Result<Self, DecimalError> {
        let () = Self::IS_LEGAL;
        if unscaled.unsigned_abs() < 10_u128.pow(PRECISION.into()) {
            return Ok(Self(unscaled));
        }
        Err(Self::error(&format!("{unscaled} / 10^{SCALE}")))
    }

    /// The number times 10^`SCALE`.
    #[must_use]
    pub const fn unscaled(self) -> i128 {
        self.0
    }

    /// The sum, unless it has too many digits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).and_then(|sum| Self::from_unscaled(sum).ok())
    }

    /// The difference, unless it has too many digits.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).and_then(|difference| Self::from_unscaled(difference).ok())
    }

    fn error(number: &str) -> DecimalError {
        DecimalError { number: number.to_owned(), precision: PRECISION, scale: SCALE }
    }

    fn parse(text: &str) -> Option<Self> {
        let (is_negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let are_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        let is_number = !(whole.is_empty() && fraction.is_empty());
        let fraction = fraction.trim_end_matches('0');
        if !is_number
            || !are_digits(whole)
            || !are_digits(fraction)
            || fraction.len() > SCALE.into()
        {
            return None;
        }
        let whole = whole.trim_start_matches('0');
        let unscaled = format!("{whole}{fraction:0<width$}", width = SCALE.into());
        let unscaled: i128 = if unscaled.is_empty() { 0 } else { unscaled.parse().ok()? };
        Self::from_unscaled(if is_negative { -unscaled } else { unscaled }).ok()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_unscaled(unscaled(bytes)?).ok()
    }
}

/// The bytes that a number of so many digits needs, in two's complement.
const fn bytes_of(precision: u8) -> usize {
    let mut bytes = 1;
    while digits_of(bytes) < precision as usize {
        bytes += 1;
    }
    bytes
}

/// The digits that numbers of so many bytes can have, in two's complement: those of 2^(8n-1) - 1,
/// without the first.
pub(crate) const fn digits_of(bytes: usize) -> usize {
    const MILLIONTHS_OF_A_DIGIT_PER_BIT: usize = 301_029;
    let bits = bytes.saturating_mul(8).saturating_sub(1);
    bits.saturating_mul(MILLIONTHS_OF_A_DIGIT_PER_BIT) / 1_000_000
}

/// The number in two's complement, big endian; longer ones than 16 bytes are no `i128`.
fn unscaled(bytes: &[u8]) -> Option<i128> {
    let fill = if *bytes.first()? < 0x80 { 0 } else { 0xff };
    let extra = bytes.len().saturating_sub(size_of::<i128>());
    let (filling, bytes) = bytes.split_at_checked(extra)?;
    let mut wide = [fill; size_of::<i128>()];
    let start = wide.len().checked_sub(bytes.len())?;
    wide.get_mut(start..)?.copy_from_slice(bytes);
    let number = i128::from_be_bytes(wide);
    (filling.iter().all(|byte| *byte == fill) && (number < 0) == (fill == 0xff)).then_some(number)
}

/// The text of a datum with this scale; none above 38 digits.
pub(crate) fn text(bytes: &[u8], scale: usize) -> Option<String> {
    with_point(unscaled(bytes)?, scale)
}

fn with_point(unscaled: i128, scale: usize) -> Option<String> {
    let sign = if unscaled < 0 { "-" } else { "" };
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale.checked_add(1)?);
    let (whole, fraction) = digits.split_at_checked(digits.len().checked_sub(scale)?)?;
    let point = if fraction.is_empty() { "" } else { "." };
    Some(format!("{sign}{whole}{point}{fraction}"))
}

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> fmt::Display
    for Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_point(self.0, SCALE.into()).unwrap_or_default())
    }
}

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> fmt::Debug
    for Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> FromStr
    for Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    type Err = DecimalError;

    /// Reads a number exactly: digits beyond the scale, other than zeros, are refused.
    fn from_str(text: &str) -> Result<Self, DecimalError> {
        Self::parse(text).ok_or_else(|| Self::error(text))
    }
}

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> Serialize
    for Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            return serializer.collect_str(self);
        }
        let bytes = self.0.to_be_bytes();
        if FIXED_BYTES > bytes.len() {
            let fill = if self.0 < 0 { 0xff } else { 0 };
            let mut wide = vec![fill; FIXED_BYTES - bytes.len()];
            wide.extend(bytes);
            return serializer.serialize_bytes(&wide);
        }
        let length = if FIXED_BYTES > 0 { FIXED_BYTES } else { shortest(self.0) };
        let start = bytes.len().saturating_sub(length);
        serializer.serialize_bytes(bytes.get(start..).unwrap_or_default())
    }
}

/// The bytes that a number needs, in two's complement.
fn shortest(number: i128) -> usize {
    let magnitude = if number < 0 { !number } else { number };
    let bits = i128::BITS - magnitude.leading_zeros() + 1;
    bits.div_ceil(u8::BITS) as usize
}

impl<'de, const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> Deserialize<'de>
    for Decimal<PRECISION, SCALE, FIXED_BYTES>
{
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = DecimalVisitor::<PRECISION, SCALE, FIXED_BYTES>;
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(visitor)
        } else {
            deserializer.deserialize_bytes(visitor)
        }
    }
}

struct DecimalVisitor<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize>;

impl<const PRECISION: u8, const SCALE: u8, const FIXED_BYTES: usize> Visitor<'_>
    for DecimalVisitor<PRECISION, SCALE, FIXED_BYTES>
{
    type Value = Decimal<PRECISION, SCALE, FIXED_BYTES>;

    /// The words of [`Logical`](crate::avro_types::Logical), which the check of the fit compares.
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decimal({PRECISION}, {SCALE})")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Decimal::from_bytes(bytes)
            .ok_or_else(|| E::invalid_value(serde::de::Unexpected::Bytes(bytes), &self))
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        text.parse().map_err(E::custom)
    }
}
