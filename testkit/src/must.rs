//! Fails a test with a sentence instead of a backtrace.

/// The value that a test needs to go on, or the failure that ends it.
pub trait Must<T> {
    /// The value.
    ///
    /// # Panics
    /// If there is none; the message names the action, and every cause.
    #[track_caller]
    fn must(self, action: &str) -> T;
}

impl<T, E: Into<anyhow::Error>> Must<T> for Result<T, E> {
    #[track_caller]
    fn must(self, action: &str) -> T {
        match self {
            Ok(value) => value,
            Err(error) => panic!("could not {action}: {:#}", error.into()),
        }
    }
}

impl<T> Must<T> for Option<T> {
    #[track_caller]
    fn must(self, action: &str) -> T {
        match self {
            Some(value) => value,
            None => panic!("could not {action}: there is none"),
        }
    }
}
