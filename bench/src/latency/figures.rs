//! Percentiles of one kind of span.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Names of the percentiles in the table, and their values.
pub(crate) const PERCENTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Significant digits of the histogram.
const DIGITS: u8 = 3;

/// The two ends of a span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Span {
    /// From the scheduled time of the append until the consumer had the event: includes the delay
    /// that a stall causes for later appends.
    Intended,
    /// From the call of append until the consumer had the event.
    Called,
    /// From the return of append until the consumer had the event; 0 if it was faster.
    Returned,
    /// From the recorded time, by the database's clock, until the consumer had the event.
    Recorded,
    /// From the call of append to its return.
    Append,
}

impl Span {
    /// In the order of the table.
    pub(crate) const ALL: [Self; 5] =
        [Self::Intended, Self::Called, Self::Returned, Self::Recorded, Self::Append];
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Intended => "intended send → received",
            Self::Called => "append called → received",
            Self::Returned => "append returned → received",
            Self::Recorded => "recorded time → received",
            Self::Append => "append called → returned",
        })
    }
}

/// The percentiles of one round.
#[derive(Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) span: Span,
    /// In the order of [`PERCENTILES`].
    pub(crate) percentiles_ms: Vec<f64>,
}

impl Figures {
    /// Puts durations into a histogram of microseconds.
    pub(crate) fn of(
        span: Span,
        durations: impl IntoIterator<Item = Duration>,
    ) -> anyhow::Result<Self> {
        let mut histogram = Histogram::<u32>::new(DIGITS)?;
        for duration in durations {
            histogram.record(u64::try_from(duration.as_micros())?)?;
        }
        let ms = |quantile| {
            Duration::from_micros(histogram.value_at_quantile(quantile)).as_secs_f64() * 1e3
        };
        let percentiles_ms = PERCENTILES.iter().map(|(_, quantile)| ms(*quantile)).collect();
        Ok(Self { span, percentiles_ms })
    }

    pub(crate) fn p50_ms(&self) -> f64 {
        self.percentiles_ms[0]
    }

    pub(crate) fn p99_ms(&self) -> f64 {
        self.percentiles_ms[2]
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.span)?;
        for ((name, _), value) in PERCENTILES.iter().zip(&self.percentiles_ms) {
            write!(f, " {name} {value:.1}")?;
        }
        f.write_str(" ms")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_durations() {
        let figures = Figures::of(Span::Called, (1..=1_000).map(Duration::from_millis)).unwrap();
        let exact = [500.0, 900.0, 990.0, 999.0, 1_000.0];
        for (found, exact) in figures.percentiles_ms.iter().zip(exact) {
            assert!((found / exact - 1.0).abs() < 0.002, "{found} is not {exact}");
        }
    }
}
