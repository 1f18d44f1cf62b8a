//! Last versions of the streams seen lately.

use std::collections::HashMap;
use std::mem;

use crate::position::Version;

/// Remembers versions of streams, those asked for lately the longest, in bounded memory.
///
/// Two generations: when the young one is full it becomes the old one, and what was old is forgotten.
/// So it holds between once and twice `streams_max` entries, at no cost for each use.
#[derive(Debug)]
pub(crate) struct VersionCache {
    young: HashMap<String, Version>,
    old: HashMap<String, Version>,
    streams_max: usize,
}

impl VersionCache {
    pub(crate) fn new(streams_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), streams_max }
    }

    pub(crate) fn get(&self, stream: &str) -> Option<Version> {
        self.young.get(stream).or_else(|| self.old.get(stream)).copied()
    }

    pub(crate) fn insert(&mut self, stream: &str, version: Version) {
        if let Some(last) = self.young.get_mut(stream) {
            *last = version;
            return;
        }
        if self.young.len() >= self.streams_max {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(stream.to_owned(), version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_version_is_given_and_memory_is_bounded() {
        let mut cache = VersionCache::new(10);
        for number in 0..1_000 {
            let version = Version::new(number).unwrap();
            cache.insert("always", version);
            cache.insert(&format!("stream-{number}"), version);
            assert_eq!(cache.get("always"), Some(version));
            assert!(cache.young.len() + cache.old.len() <= 20);
        }
        assert_eq!(cache.get("stream-999").map(Version::get), Some(999));
        assert_eq!(cache.get("stream-0"), None);
    }
}
