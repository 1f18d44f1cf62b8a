//! Settings with which Kafka itself loses acknowledged events, or refuses some. They are the
//! operator's choice: the relay warns, and does not change them.

use std::collections::BTreeMap;
use std::fmt;

/// Kafka's default for `message.timestamp.before.max.ms`: no limit.
const NO_LIMIT: i64 = i64::MAX;
/// The shortest `message.timestamp.after.max.ms` without a warning: Kafka's default. The clock of
/// the database may be ahead of the broker's by that much.
const AHEAD_MS_MIN: i64 = 3_600_000;

/// A setting of a topic that loses or refuses events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Risk {
    /// The setting.
    pub setting: &'static str,
    /// Its value.
    pub found: String,
    /// A value without the risk.
    pub safe: String,
    /// The consequence.
    pub consequence: &'static str,
}

impl fmt::Display for Risk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {}: {}", self.setting, self.found, self.consequence)
    }
}

/// The number of replicas, as a setting: it is given when a topic is created.
pub(crate) const REPLICATION: &str = "replication.factor";

/// The risks of a topic with so many replicas, if that is known, and these settings, as the broker
/// describes them.
pub(crate) fn risks(replicas: Option<usize>, settings: &BTreeMap<String, String>) -> Vec<Risk> {
    let single = (replicas == Some(1)).then(|| Risk {
        setting: REPLICATION,
        found: "1".to_owned(),
        safe: "3".to_owned(),
        consequence: "the topic is on one broker, and lost with it",
    });
    let number = |name: &str| settings.get(name).and_then(|value| value.parse::<i64>().ok());
    let risk = |setting: &'static str, safe: i64, consequence| {
        let found = settings.get(setting)?.clone();
        Some(Risk { setting, found, safe: safe.to_string(), consequence })
    };
    // A topic with one replica would take no event with 2.
    let in_sync = number("min.insync.replicas").filter(|of| *of < 2 && single.is_none());
    let in_sync = in_sync.and_then(|_| {
        let lost = "an acknowledged event can be on one broker only, and is lost with it";
        risk("min.insync.replicas", 2, lost)
    });
    let is_unclean = |value: &&String| value.as_str() == "true";
    let unclean = settings.get("unclean.leader.election.enable").filter(is_unclean).map(|found| {
        Risk {
            setting: "unclean.leader.election.enable",
            found: found.clone(),
            safe: "false".to_owned(),
            consequence: "a broker that lacks acknowledged events can become leader, and they are lost",
        }
    });
    let before = "message.timestamp.before.max.ms";
    let old = number(before).filter(|max| *max < NO_LIMIT);
    let old = old.and_then(|_| risk(before, NO_LIMIT, "older events are refused"));
    let after = "message.timestamp.after.max.ms";
    let ahead = number(after).filter(|max| *max < AHEAD_MS_MIN);
    let refused = "events are refused while the clock of the database is ahead of the broker's";
    let ahead = ahead.and_then(|_| risk(after, AHEAD_MS_MIN, refused));
    [single, in_sync, unclean, old, ahead].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(replicas: Option<usize>, settings: &[(&str, &str)]) -> Vec<&'static str> {
        let settings =
            settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        risks(replicas, &settings.collect()).iter().map(|risk| risk.setting).collect()
    }

    #[test]
    fn settings_that_lose_or_refuse_events_are_named_and_kafkas_defaults_of_time_are_not() {
        let safe = [
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
            ("message.timestamp.before.max.ms", "9223372036854775807"),
            ("message.timestamp.after.max.ms", "3600000"),
        ];
        assert!(of(Some(3), &safe).is_empty());
        assert!(of(None, &[]).is_empty(), "a broker that describes nothing");
        let risky = [
            ("min.insync.replicas", "1"),
            ("unclean.leader.election.enable", "true"),
            ("message.timestamp.before.max.ms", "86400000"),
            ("message.timestamp.after.max.ms", "1000"),
        ];
        assert_eq!(of(Some(3), &risky), risky.map(|(name, _)| name));
        assert_eq!(of(None, &risky), risky.map(|(name, _)| name));
    }

    #[test]
    fn of_a_topic_with_one_replica_two_in_sync_are_not_advised() {
        assert_eq!(of(Some(1), &[("min.insync.replicas", "1")]), [REPLICATION]);
        assert_eq!(of(Some(2), &[("min.insync.replicas", "1")]), ["min.insync.replicas"]);
    }
}
