//! The lines that the demo prints.

use std::io::{self, Write, stdout};
use std::time::Duration;

/// Begins a step of the demo.
pub(crate) fn heading(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(stdout(), "\n==> {}", text.as_ref())
}

/// Prints one line within a step.
pub(crate) fn say(text: impl AsRef<str>) -> io::Result<()> {
    writeln!(stdout(), "    {}", text.as_ref())
}

/// `1234567` as 1,234,567.
pub(crate) fn grouped(number: impl TryInto<i128>) -> String {
    let text = number.try_into().unwrap_or_default().to_string();
    let (sign, digits) = text.split_at(usize::from(text.starts_with('-')));
    let groups: Vec<String> =
        digits.as_bytes().rchunks(3).rev().map(|it| String::from_utf8_lossy(it).into()).collect();
    format!("{sign}{}", groups.join(","))
}

/// A rate, rounded down; per microsecond if the time is zero.
pub(crate) fn per_second(count: usize, time: Duration) -> String {
    grouped(count as u128 * 1_000_000 / time.as_micros().max(1))
}

/// A time in the unit that suits it: 8.6 ms, 1.24 s.
pub(crate) fn time(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    match seconds {
        0.0..0.1 => format!("{:.1} ms", seconds * 1e3),
        0.1..1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0_i64, 7, 999, 1_000, 26_755_517, -26_755, -100].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "26,755,517", "-26,755", "-100"]);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts =
            [1_500, 99_000, 250_000, 1_240_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(texts, ["1.5 ms", "99.0 ms", "250 ms", "1.24 s"]);
    }

    #[test]
    fn rate_of_no_time_is_finite() {
        assert_eq!(per_second(500, Duration::from_millis(250)), "2,000");
        assert_eq!(per_second(5, Duration::ZERO), "5,000,000");
    }
}
