//! The lines in which two values differ.

use std::fmt::Debug;

/// The pretty form of both values: common lines, `-` lines of the expected value only, `+` lines of
/// the actual value only.
pub(crate) fn lines(expected: &impl Debug, actual: &impl Debug) -> String {
    let (expected, actual) = (format!("{expected:#?}"), format!("{actual:#?}"));
    let (expected, actual): (Vec<_>, Vec<_>) =
        (expected.lines().collect(), actual.lines().collect());
    let common = common_lengths(&expected, &actual);
    let (mut text, mut left, mut right) = (String::new(), 0, 0);
    loop {
        let (sign, line) = match (expected.get(left), actual.get(right)) {
            (Some(same), Some(other)) if same == other => (' ', same),
            (Some(line), None) => ('-', line),
            (Some(line), Some(_)) if common[left + 1][right] >= common[left][right + 1] => {
                ('-', line)
            }
            (_, Some(line)) => ('+', line),
            (None, None) => return text,
        };
        left += usize::from(sign != '+');
        right += usize::from(sign != '-');
        text.extend([sign, ' ']);
        text.push_str(line);
        text.push('\n');
    }
}

/// At `[i][j]`, the number of lines that the parts behind them have in common, in order.
fn common_lengths(expected: &[&str], actual: &[&str]) -> Vec<Vec<usize>> {
    let mut lengths = vec![vec![0; actual.len() + 1]; expected.len() + 1];
    for left in (0..expected.len()).rev() {
        for right in (0..actual.len()).rev() {
            lengths[left][right] = if expected[left] == actual[right] {
                lengths[left + 1][right + 1] + 1
            } else {
                lengths[left + 1][right].max(lengths[left][right + 1])
            };
        }
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_lines_that_differ_are_marked() {
        let text = lines(&[("a", 1), ("b", 2)], &[("a", 1), ("b", 3), ("c", 4)]);
        let marked: Vec<_> = text.lines().filter(|line| !line.starts_with(' ')).collect();
        assert_eq!(
            marked,
            [
                "-         2,",
                "+         3,",
                "+     (",
                "+         \"c\",",
                "+         4,",
                "+     ),"
            ]
        );
        assert!(lines(&"same", &"same").starts_with("  "));
    }
}
