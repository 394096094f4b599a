//! What a host refuses to a test.

use core::fmt;

/// Says why this host, or this user, cannot provide the condition that a test asked for.
///
/// It is no failure of what is tested; see [`or_skip`](crate::isolate::or_skip).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(String);

impl Unavailable {
    /// Makes a reason of what was attempted and what became of it.
    pub fn new(attempt: &str, cause: impl fmt::Display) -> Self {
        Self(format!("{attempt}: {cause}"))
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Unavailable {}
