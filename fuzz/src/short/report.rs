//! What a worker tells, and how it is shown.

use std::{fmt, str::FromStr};

/// The outcome of a target that found nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    /// Inputs fed.
    pub inputs: u64,
    /// Of these, past the first stage.
    pub parsed: u64,
    /// Of these, past the last one.
    pub accepted: u64,
    /// Time of the slowest, in microseconds.
    pub slowest_us: u64,
    /// Time of all, in milliseconds.
    pub total_ms: u64,
    /// Most memory of the process.
    pub peak_kib: u64,
}

/// One line for the parent.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { inputs, parsed, accepted, slowest_us, total_ms, peak_kib } = self;
        write!(f, "{inputs} {parsed} {accepted} {slowest_us} {total_ms} {peak_kib}")
    }
}

impl FromStr for Report {
    type Err = std::num::ParseIntError;

    fn from_str(line: &str) -> Result<Self, Self::Err> {
        let mut numbers = line.split_whitespace();
        let mut next = || numbers.next().unwrap_or_default().parse();
        Ok(Self {
            inputs: next()?,
            parsed: next()?,
            accepted: next()?,
            slowest_us: next()?,
            total_ms: next()?,
            peak_kib: next()?,
        })
    }
}

/// The lines of a table, its head first.
#[must_use]
pub fn table(name: &str, report: Option<&Report>) -> String {
    let Some(report) = report else {
        return format!(
            "{name:<16} {:>9} {:>7} {:>9} {:>7} {:>10} {:>8}",
            "inputs", "parsed", "accepted", "s", "slowest ms", "peak MiB"
        );
    };
    let percent = |part: u64| format!("{} %", (part * 100).checked_div(report.inputs).unwrap_or(0));
    let decimal = |n: u64, unit: u64| format!("{}.{}", n / unit, n % unit * 10 / unit);
    format!(
        "{name:<16} {:>9} {:>7} {:>9} {:>7} {:>10} {:>8}",
        report.inputs,
        percent(report.parsed),
        percent(report.accepted),
        decimal(report.total_ms, 1000),
        decimal(report.slowest_us, 1000),
        report.peak_kib >> 10,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_survives_the_pipe() {
        let report = Report {
            inputs: 200,
            parsed: 100,
            accepted: 3,
            slowest_us: 2500,
            total_ms: 60_010,
            peak_kib: 9000,
        };
        assert_eq!(report.to_string().parse(), Ok(report));
        assert!("1 2".parse::<Report>().is_err() && "".parse::<Report>().is_err());
        let line = table("x", Some(&report));
        assert!(line.contains("50 %") && line.contains("60.0") && line.contains("2.5"), "{line}");
    }
}
