//! The table that a benchmark ends with: one line a row, always the same rows.

use std::fmt;

/// What a row's numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Nanoseconds.
    Nanoseconds,
    /// Milliseconds.
    Milliseconds,
    /// Hundredths of something.
    Percent,
    /// Multiples of something.
    Times,
    /// Bytes.
    Bytes,
    /// Millions of bytes.
    Megabytes,
    /// Calls of something.
    Calls,
}

/// What a row must reach. Less is better in every row.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At most this many times what it is compared with.
    Ratio(f64),
    /// At most this, in the row's unit.
    Value(f64),
}

/// A row of the table, before anything is measured.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is called, for good.
    pub name: &'static str,
    /// What its numbers are.
    pub unit: Unit,
    /// What ours is compared with.
    pub peer: &'static str,
    /// What must be reached.
    pub target: Target,
    /// What should be reached, in the row's unit.
    pub aim: Option<f64>,
}

/// What was measured for a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Numbers {
    /// Ours; `None` where the row was skipped.
    pub ours: Option<f64>,
    /// The peer's; `None` where the peer is absent.
    pub peer: Option<f64>,
}

impl Numbers {
    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.peer?)
    }
}

/// A table in the making.
#[derive(Debug)]
pub struct Table {
    rows: &'static [Row],
    numbers: Vec<Numbers>,
    only: Option<String>,
}

impl Table {
    /// Makes the table of `rows`, of which `only` one is wanted, or all.
    #[must_use]
    pub fn new(rows: &'static [Row], only: Option<String>) -> Self {
        Self {
            rows,
            numbers: vec![Numbers::default(); rows.len()],
            only,
        }
    }

    /// Says whether one of the rows in `names` is wanted.
    #[must_use]
    pub fn wants(&self, names: &[&str]) -> bool {
        let only = self.only.as_deref();
        only.is_none_or(|only| names.contains(&only))
    }

    /// Enters what was measured.
    ///
    /// # Panics
    ///
    /// If the table has no row of this name.
    pub fn enter(&mut self, name: &str, ours: f64, peer: Option<f64>) {
        let at = self.rows.iter().position(|row| row.name == name);
        let at = at.expect("a row that is not in the table");
        self.numbers[at] = Numbers {
            ours: Some(ours),
            peer,
        };
    }

    /// Returns ours of a row, if it was entered.
    #[must_use]
    pub fn ours(&self, name: &str) -> Option<f64> {
        let at = self.rows.iter().position(|row| row.name == name)?;
        self.numbers[at].ours
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.rows.iter().zip(&self.numbers);
        lines
            .map(|(row, numbers)| row.line(numbers))
            .try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Row {
    /// Makes a row of nanoseconds without an aim.
    #[must_use]
    pub const fn new(name: &'static str, peer: &'static str, target: Target) -> Self {
        Self {
            name,
            unit: Unit::Nanoseconds,
            peer,
            target,
            aim: None,
        }
    }

    /// Sets what the numbers are.
    #[must_use]
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Sets what should be reached, in the row's unit.
    #[must_use]
    pub const fn aim(mut self, most: f64) -> Self {
        self.aim = Some(most);
        self
    }

    /// Returns the line of the row: `row: NAME ours=V peer=WHO:V ratio=R target=T met=yes`, and
    /// ` aim=V aim_met=no` where there is an aim. `docs/PERFORMANCE.md` has the details.
    #[must_use]
    pub fn line(&self, numbers: &Numbers) -> String {
        let name = self.name;
        let value = |number: f64| self.unit.value(number);
        let ours = numbers.ours.map_or("skipped".into(), value);
        let peer = match numbers {
            Numbers { ours: None, .. } => "skipped".into(),
            Numbers { peer, .. } => peer.map_or("absent".into(), value),
        };
        let who = self.peer;
        let ratio = numbers.ratio();
        let (target, reached) = match self.target {
            Target::Ratio(most) => (digits(most), ratio.is_some_and(|ratio| ratio <= most)),
            Target::Value(most) => (
                self.unit.bound(most),
                numbers.ours.is_some_and(|ours| ours <= most),
            ),
        };
        let ratio = ratio.map_or("none".into(), digits);
        let met = yes_or_no(reached);
        let aim = self.aim.map_or(String::new(), |aim| {
            let met = yes_or_no(numbers.ours.is_some_and(|ours| ours <= aim));
            format!(" aim={} aim_met={met}", self.unit.bound(aim))
        });
        format!(
            "row: {name} ours={ours} peer={who}:{peer} ratio={ratio} target={target} met={met}{aim}"
        )
    }
}

impl Unit {
    const fn suffix(self) -> &'static str {
        match self {
            Self::Nanoseconds => "ns",
            Self::Milliseconds => "ms",
            Self::Percent => "%",
            Self::Times => "x",
            Self::Bytes => "B",
            Self::Megabytes => "MB",
            Self::Calls => "calls",
        }
    }

    /// Formats what was measured.
    fn value(self, number: f64) -> String {
        let decimals = match self {
            Self::Nanoseconds | Self::Milliseconds => 1,
            _ => 3,
        };
        format!("{number:.decimals$}{}", self.suffix())
    }

    /// Formats what must or should be reached.
    fn bound(self, number: f64) -> String {
        digits(number) + self.suffix()
    }
}

fn yes_or_no(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// Formats a ratio or a bound: with so many decimals that one just above a bound is seen to be, and
/// with three digits that mean something where it is small.
fn digits(number: f64) -> String {
    let mut decimals = 4;
    let mut small = number;
    while small > 0.0 && small < 0.01 && decimals < 7 {
        small *= 10.0;
        decimals += 1;
    }
    let text = format!("{number:.decimals$}");
    text.trim_end_matches('0').trim_end_matches('.').into()
}

#[cfg(test)]
mod tests {
    use super::{Numbers, Row, Table, Target, Unit, digits};

    const ROW: Row = Row::new("pairs", "asmjit", Target::Ratio(0.125)).aim(60.0);
    const BOUND: Row = Row::new("share", "asmjit", Target::Value(1.0)).unit(Unit::Percent);

    #[test]
    fn a_ratio_and_an_aim() {
        let numbers = Numbers {
            ours: Some(70.0),
            peer: Some(608.0),
        };
        assert_eq!(
            ROW.line(&numbers),
            "row: pairs ours=70.0ns peer=asmjit:608.0ns ratio=0.1151 target=0.125 met=yes \
             aim=60ns aim_met=no"
        );
    }

    #[test]
    fn without_the_peer_a_ratio_is_not_met() {
        let numbers = Numbers {
            ours: Some(7.0),
            peer: None,
        };
        assert_eq!(
            ROW.line(&numbers),
            "row: pairs ours=7.0ns peer=asmjit:absent ratio=none target=0.125 met=no \
             aim=60ns aim_met=yes"
        );
    }

    #[test]
    fn skipped_rows_are_printed_and_not_met() {
        let table = Table::new(&[ROW, BOUND], Some("other".into()));
        assert_eq!(
            table.to_string(),
            "row: pairs ours=skipped peer=asmjit:skipped ratio=none target=0.125 met=no \
             aim=60ns aim_met=no\n\
             row: share ours=skipped peer=asmjit:skipped ratio=none target=1% met=no\n"
        );
    }

    #[test]
    fn a_value_is_met_up_to_its_bound_whatever_the_peer() {
        let mut table = Table::new(&[BOUND], None);
        table.enter("share", 1.0, None);
        assert_eq!(
            table.to_string(),
            "row: share ours=1.000% peer=asmjit:absent ratio=none target=1% met=yes\n"
        );
        table.enter("share", 1.01, Some(2.0));
        assert_eq!(
            table.to_string(),
            "row: share ours=1.010% peer=asmjit:2.000% ratio=0.505 target=1% met=no\n"
        );
    }

    #[test]
    fn ratios_keep_the_digits_that_matter() {
        let all = [0.125, 0.025, 1.0 / 150.0, 0.88, 1.3, 4.0, 1.00012, 0.0];
        assert_eq!(
            all.map(digits),
            [
                "0.125", "0.025", "0.00667", "0.88", "1.3", "4", "1.0001", "0"
            ]
        );
    }
}
