//! How figures are written for people.

use std::time::Duration;

/// `1234567` as 1,234,567.
pub(crate) fn grouped(number: impl TryInto<i128>) -> String {
    let Ok(number) = number.try_into() else { return "-".to_owned() };
    let digits = number.unsigned_abs().to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    if number < 0 { format!("-{text}") } else { text }
}

/// How many a second, rounded down; of no time at all: as many as there were.
pub(crate) fn per_second(count: u64, time: Duration) -> u64 {
    let micros = time.as_micros().max(1);
    u64::try_from(u128::from(count) * 1_000_000 / micros).unwrap_or(u64::MAX)
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

/// Minutes of a mean delay, with their sign: +8.3; - when there is none.
pub(crate) fn delay(minutes: Option<f64>) -> String {
    minutes.map_or_else(|| "-".to_owned(), |minutes| format!("{minutes:+.1}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_grouped() {
        let texts = [0_i64, 7, 999, 1_000, 26_755_517, -26_755].map(grouped);
        assert_eq!(texts, ["0", "7", "999", "1,000", "26,755,517", "-26,755"]);
    }

    #[test]
    fn times_have_the_unit_that_suits_them() {
        let texts =
            [1_500, 99_000, 250_000, 1_240_000].map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(texts, ["1.5 ms", "99.0 ms", "250 ms", "1.24 s"]);
    }

    #[test]
    fn rate_of_no_time_is_finite() {
        assert_eq!(per_second(500, Duration::from_millis(250)), 2_000);
        assert_eq!(per_second(5, Duration::ZERO), 5_000_000);
    }
}
