//! An error in one line.

use std::error::Error;

/// An error with its causes, in one line. A cause that its effect has said in the same words is
/// not repeated.
#[must_use]
pub fn in_full(error: &dyn Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !line.ends_with(&said) {
            line.push_str(": ");
            line.push_str(&said);
        }
        cause = error.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Said {
        said: &'static str,
        #[source]
        cause: Option<Box<Self>>,
    }

    #[test]
    fn each_cause_is_said_once() {
        let cause = Said { said: "no such table", cause: None };
        let database = Said { said: "the database says: no such table", cause: Some(cause.into()) };
        let error = Said { said: "read the state", cause: Some(database.into()) };
        assert_eq!(in_full(&error), "read the state: the database says: no such table");
    }
}
