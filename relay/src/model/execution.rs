//! Whether a command changes something.

/// Whether a command changes something, or only lists the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Execution {
    /// It lists, and changes nothing.
    DryRun,
    /// It makes the changes.
    Apply,
}
