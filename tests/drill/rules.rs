//! The rules of alerts, with all durations divided by a number, so that a drill need not wait for
//! minutes.

const ALERTS: &str = include_str!("../../ops/prometheus/alerts.yml");

/// Durations after `for:`, in ranges such as `[5m]`, and thresholds of metrics in seconds.
pub(crate) fn faster(by: u32) -> String {
    ALERTS.lines().map(|line| format!("{}\n", faster_line(line, by))).collect()
}

fn faster_line(line: &str, by: u32) -> String {
    if let Some((before, duration)) = line.split_once("for: ") {
        return format!("{before}for: {}s", (seconds(duration) / by).max(1));
    }
    let Some((_, expression)) = line.split_once("expr: ") else { return line.to_owned() };
    let mut faster = line.to_owned();
    if let Some((_, range)) = expression.split_once('[')
        && let Some((range, _)) = range.split_once(']')
    {
        let shorter = format!("[{}s]", (seconds(range) / by).max(2));
        faster = faster.replace(&format!("[{range}]"), &shorter);
    }
    if expression.contains("_seconds")
        && let Some((before, threshold)) = faster.rsplit_once("> ")
        && let Ok(threshold) = threshold.parse::<u32>()
    {
        faster = format!("{before}> {}", (threshold / by).max(1));
    }
    faster
}

fn seconds(duration: &str) -> u32 {
    let (number, unit) = duration.split_at(duration.len().saturating_sub(1));
    let number: u32 = number.parse().unwrap_or(0);
    match unit {
        "h" => number * 3_600,
        "m" => number * 60,
        _ => number,
    }
}
