//! Caches the last applied events of recently used streams.

use std::collections::HashMap;
use std::mem;

use crate::progress::LastApplied;

/// Caches the last applied events of streams in bounded memory.
///
/// Two generations: when the young one is full, it replaces the old one. So the cache holds up to
/// twice `streams_max` entries, and a lookup updates nothing.
#[derive(Debug)]
pub(crate) struct VersionCache {
    young: HashMap<String, LastApplied>,
    old: HashMap<String, LastApplied>,
    streams_max: usize,
}

impl VersionCache {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), streams_max }
    }

    pub(crate) fn get(&self, stream: &str) -> Option<&LastApplied> {
        self.young.get(stream).or_else(|| self.old.get(stream))
    }

    pub(crate) fn insert(&mut self, stream: &str, applied: LastApplied) {
        if let Some(last) = self.young.get_mut(stream) {
            *last = applied;
            return;
        }
        if self.young.len() >= self.streams_max {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(stream.to_owned(), applied);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::position::Version;

    #[test]
    fn newest_version_is_given_and_memory_is_bounded() {
        let mut cache = VersionCache::new(10);
        for number in 0..1_000 {
            let version = Version::new(number).unwrap();
            let applied = LastApplied::new(version, &[Uuid::nil()]);
            cache.insert("always", applied.clone());
            cache.insert(&format!("stream-{number}"), applied.clone());
            assert_eq!(cache.get("always"), Some(&applied));
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get("stream-999").map(|last| last.version().get()), Some(999));
        assert_eq!(cache.get("stream-0"), None);
    }
}
