//! The SQL statements of this crate, for the configured database schema.

use std::borrow::Cow;
use std::fmt;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// The database schema that contains the tables of Annals: `annals` by default.
///
/// Lower-case letters, digits and `_`, beginning with a letter, at most 63 bytes: a name that needs
/// no quotes in statements and function bodies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SchemaName(Cow<'static, str>);

/// A text that is not a legal name of the database schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} cannot name the database schema: 1 to 63 lower-case letters, digits and _ are allowed, \
     beginning with a letter, and not with pg_"
)]
pub struct SchemaNameError(pub String);

impl Default for SchemaName {
    fn default() -> Self {
        Self(Cow::Borrowed(Self::WRITTEN))
    }
}

impl SchemaName {
    /// The schema name in the statement files.
    const WRITTEN: &'static str = "annals";

    /// Checks `text` as the name of a database schema.
    ///
    /// # Errors
    /// [`SchemaNameError`] if the name needs quotes or is reserved by PostgreSQL.
    pub fn new(text: impl Into<String>) -> Result<Self, SchemaNameError> {
        let text = text.into();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let begins = text.as_bytes().first().is_some_and(u8::is_ascii_lowercase);
        if !begins || text.len() > 63 || !text.bytes().all(legal) || text.starts_with("pg_") {
            return Err(SchemaNameError(text));
        }
        Ok(Self(Cow::Owned(text)))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Adapts a statement that was written for the schema `annals` to this schema.
    ///
    /// Each word `annals` of the text is replaced: use it only for statements from files of a
    /// program.
    #[must_use]
    pub fn statement(&self, text: &'static str) -> SqlStr {
        if self.0 == Self::WRITTEN {
            return text.into_sql_str();
        }
        AssertSqlSafe(replace_word(text, Self::WRITTEN, &self.0)).into_sql_str()
    }

    /// A statement of this schema, reading the events of archived streams, too.
    pub(crate) fn with_archived(&self, statement: &SqlStr) -> SqlStr {
        let [events, all_events] = ["events", "all_events"].map(|name| format!("{self}.{name}"));
        AssertSqlSafe(replace_word(statement.as_str(), &events, &all_events)).into_sql_str()
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn replace_word(text: &str, word: &str, by: &str) -> String {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let bytes = text.as_bytes();
    let mut replaced = String::with_capacity(text.len());
    let mut copied = 0;
    for (start, _) in text.match_indices(word) {
        let end = start + word.len();
        let begins = start == 0 || !of_word(bytes[start - 1]);
        let ends = end == bytes.len() || !of_word(bytes[end]);
        if begins && ends {
            replaced.push_str(&text[copied..start]);
            replaced.push_str(by);
            copied = end;
        }
    }
    replaced.push_str(&text[copied..]);
    replaced
}

macro_rules! statements {
    ($($name:ident),+ $(,)?) => {
        /// The texts of all statements, built once per store.
        #[derive(Debug)]
        pub(crate) struct Statements { $(pub(crate) $name: SqlStr),+ }

        impl Statements {
            pub(crate) fn new(schema: &SchemaName) -> Self {
                Self { $($name: schema.statement(include_str!(concat!("../sql/", stringify!($name), ".sql")))),+ }
            }

            /// All statements with their names.
            #[cfg(test)]
            fn all(&self) -> Vec<(&'static str, SqlStr)> {
                vec![$((stringify!($name), self.$name.clone())),+]
            }
        }
    };
}
statements!(
    adopt,
    append,
    append_each,
    append_each_outside_a_transaction,
    append_in,
    append_outside_a_transaction,
    append_tagged,
    append_tagged_in,
    append_tagged_outside_a_transaction,
    categories,
    causal_tree,
    events_by_id,
    follow_evidence,
    follow_page_of_all,
    follow_page_of_category,
    follow_page_of_positions,
    follow_removed_events,
    fsync,
    grants_for,
    has_own_session,
    identity,
    is_read_only_appender,
    late_events,
    log_end,
    migrate_lock,
    migrate_target,
    migrate_without_roles,
    migrations_applied,
    missing_events,
    notify,
    oldest_client,
    outbox_drop_published,
    outbox_extend,
    outbox_page_by_position,
    outbox_page_of_category,
    outbox_page_of_positions,
    outbox_page_of_stream,
    personal_destroy,
    personal_epoch,
    personal_fence,
    personal_key_create,
    personal_key_find,
    personal_keys_by_id,
    personal_rewrap,
    personal_rotated,
    personal_unfinished,
    personal_wrapped_before,
    position_at,
    projection_acquire,
    projection_activate,
    projection_begin,
    projection_change_mode,
    projection_create,
    projection_drop,
    projection_enter,
    projection_fail,
    projection_find,
    projection_has_seen,
    projection_is_inline,
    projection_lock_appends,
    projection_progress,
    projection_read,
    projection_register,
    projection_release,
    projection_renew,
    projection_skip,
    projection_skips,
    projection_status,
    projection_switch,
    projection_take_over,
    projections,
    read_all,
    read_all_backwards,
    read_category,
    read_category_backwards,
    read_causation,
    read_causation_backwards,
    read_correlation,
    read_correlation_backwards,
    read_stream,
    read_stream_backwards,
    read_tag,
    read_tag_backwards,
    removed_events,
    schema_insert,
    schema_lock,
    schema_versions,
    schemas_by_fingerprint,
    schemas_of_category,
    snapshot_find,
    snapshot_write,
    snapshots_delete,
    stream_archive,
    stream_close,
    stream_life,
    stream_reopen,
    stream_restore,
    stream_truncate,
    stream_version,
    stream_versions,
    streams,
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_word_is_replaced() {
        let written =
            "select annals.append(x) -- annals_read, my_annals; set search_path = annals, pg_temp";
        let replaced = replace_word(written, "annals", "ledger");
        assert_eq!(
            replaced,
            "select ledger.append(x) -- annals_read, my_annals; set search_path = ledger, pg_temp"
        );
    }

    #[test]
    fn a_schema_name_that_needs_quotes_is_refused() {
        for text in ["", "Annals", "an nals", "1a", "pg_annals", "a\"b", "a;drop"] {
            assert!(SchemaName::new(text).is_err(), "{text:?} was taken");
        }
        assert_eq!(SchemaName::new("ledger_2").unwrap().as_str(), "ledger_2");
    }

    #[test]
    fn every_statement_says_what_it_does_first() {
        for (name, text) in Statements::new(&SchemaName::default()).all() {
            assert!(
                text.as_str().starts_with("-- "),
                "{name}.sql does not begin with its description"
            );
        }
    }
}
