//! What is wrong with a configuration.

use core::{fmt, ops::RangeInclusive};

/// A setting of a configuration that has a value out of its range: told by `check` of the
/// configuration.
///
/// ```
/// use hostmem_core::heap::HeapConfig;
/// let wrong = HeapConfig::new().shards(100).check().expect_err("too many");
/// assert_eq!((wrong.setting(), wrong.value()), ("shards", 100));
/// assert_eq!(wrong.allowed(), 1..=64);
/// assert_eq!(wrong.to_string(), "shards is 100, and must be from 1 to 64");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfigError {
    setting: &'static str,
    value: usize,
    least: usize,
    most: usize,
    step: Step,
}

/// Which values of a range may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// All.
    One,
    /// Multiples of a number.
    Multiple(usize),
    /// Powers of two.
    Power,
}

impl ConfigError {
    /// Makes the error of a value of which no more is known.
    pub(crate) const fn of_value(setting: &'static str, value: usize) -> Self {
        Self {
            setting,
            value,
            least: 0,
            most: usize::MAX,
            step: Step::One,
        }
    }

    /// Returns the name of the setting: that of the call which sets it.
    #[must_use]
    pub const fn setting(&self) -> &'static str {
        self.setting
    }

    /// Returns the value that it has.
    #[must_use]
    pub const fn value(&self) -> usize {
        self.value
    }

    /// Returns the least and the greatest value that it may have.
    #[must_use]
    pub const fn allowed(&self) -> RangeInclusive<usize> {
        self.least..=self.most
    }
}

/// Checks the value of a setting.
pub(crate) fn check(
    setting: &'static str,
    value: usize,
    allowed: RangeInclusive<usize>,
    step: Step,
) -> Result<(), ConfigError> {
    let fits = match step {
        Step::One => true,
        Step::Multiple(of) => value.is_multiple_of(of),
        Step::Power => value.is_power_of_two(),
    };
    if fits && allowed.contains(&value) {
        return Ok(());
    }
    Err(ConfigError {
        setting,
        value,
        least: *allowed.start(),
        most: *allowed.end(),
        step,
    })
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (self.least, self.most);
        write!(f, "{} is {}, and must be ", self.setting, self.value)?;
        match self.step {
            Step::One => {}
            Step::Multiple(of) => write!(f, "a multiple of {of} ")?,
            Step::Power => f.write_str("a power of two ")?,
        }
        match most {
            usize::MAX => write!(f, "from {least} on"),
            most => write!(f, "from {least} to {most}"),
        }
    }
}

impl core::error::Error for ConfigError {}
