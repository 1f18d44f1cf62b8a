//! The framing and the layouts of values.

use std::collections::BTreeMap;

use annals_schemas::{Framing, Layout};

use crate::config::check::Checker;

impl Checker {
    pub(super) fn framing(&mut self, name: &str) -> Framing {
        Framing::of(name).unwrap_or_else(|| {
            let what = format!("is {name:?}, and must be prefix, header or none");
            self.problem("topics.framing", what);
            Framing::Prefix
        })
    }

    pub(super) fn layouts(&mut self, raw: BTreeMap<String, String>) -> BTreeMap<String, Layout> {
        let mut layouts = BTreeMap::new();
        for (category, name) in raw {
            if let Some(layout) = Layout::of(&name) {
                layouts.insert(category, layout);
                continue;
            }
            let what = format!("is {name:?} for {category}, and must be record, union or envelope");
            self.problem("topics.layouts", what);
        }
        layouts
    }
}
