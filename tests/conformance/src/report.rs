//! What is run, and what is told about it.

/// How a case ended. One that found a violation panics instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider keeps the promise.
    Passed,
    /// The promise does not apply to this provider or host, for the reason given.
    Skipped(&'static str),
}

/// One case of the suite for providers of type `P`.
#[derive(Debug)]
pub struct Case<P> {
    name: &'static str,
    run: fn(P) -> Outcome,
}

impl<P> Clone for Case<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Case<P> {}

impl<P> Case<P> {
    /// Makes a case of a function that panics on a violation.
    #[must_use]
    pub const fn new(name: &'static str, run: fn(P) -> Outcome) -> Self {
        Self { name, run }
    }

    /// Returns the name: the group, two colons, and the promise.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Runs the case.
    ///
    /// # Panics
    ///
    /// When `provider` breaks the promise.
    pub fn run(&self, provider: P) -> Outcome {
        (self.run)(provider)
    }
}

/// Hears of a run. Any `FnMut(&'static str, Outcome)` does.
pub trait Report {
    /// Hears that a case begins: the last that is heard of one that crashes.
    fn begin(&mut self, name: &'static str) {
        let _ = name;
    }

    /// Hears how it ended.
    fn end(&mut self, name: &'static str, outcome: Outcome);
}

impl<F: FnMut(&'static str, Outcome)> Report for F {
    fn end(&mut self, name: &'static str, outcome: Outcome) {
        self(name, outcome);
    }
}

/// How many cases ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Cases that passed.
    pub passed: usize,
    /// Cases that do not apply.
    pub skipped: usize,
}

/// Runs `cases` on `provider`, one after the other.
///
/// # Panics
///
/// When `provider` breaks a promise.
pub fn run<P: Copy>(
    provider: P,
    cases: impl IntoIterator<Item = Case<P>>,
    report: &mut impl Report,
) -> Summary {
    let mut summary = Summary::default();
    for case in cases {
        report.begin(case.name());
        let outcome = case.run(provider);
        match outcome {
            Outcome::Passed => summary.passed += 1,
            Outcome::Skipped(_) => summary.skipped += 1,
        }
        report.end(case.name(), outcome);
    }
    summary
}

/// Makes an iterator of cases named after their functions, which are generic over one provider.
macro_rules! cases {
    ($group:literal, $P:ty: $($module:ident :: $name:ident),+ $(,)?) => {
        [$(
            $crate::Case::new(concat!($group, "::", stringify!($name)), $module::$name::<$P>),
        )+]
        .into_iter()
    };
}

/// Ends a case as skipped where the host has not enough of something; passes other errors on.
macro_rules! or_skip {
    ($result:expr, $reason:literal) => {
        match $result {
            Err(e) if e.kind() == hostmem_core::provider::ErrorKind::Exhausted => {
                return $crate::Outcome::Skipped($reason);
            }
            other => other,
        }
    };
}

pub(crate) use {cases, or_skip};
