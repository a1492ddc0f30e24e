//! The process that feeds one target.

use std::{
    fmt, fs,
    os::unix::fs::FileExt,
    process,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Resource, Rlimit, setrlimit};

use super::report::Report;
use crate::{Reach, Target, mutate::mutate, random::Random, scratch};

/// File in the scratch folder with the input at hand.
pub const INPUT: &str = "input";
/// One input must not take longer, on a busy machine and without optimization.
const PATIENCE: Duration = Duration::from_secs(10);
/// Address space: a single allocation of this size ends the process, and is a finding.
const ADDRESS_SPACE: u64 = 4 << 30;
/// Mutated inputs that got far, to go on from.
const POOL: usize = 64;

/// How long a target is fed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// Milliseconds.
    Time(u64),
    /// Inputs: the same ones each time.
    Inputs(u64),
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time(ms) => write!(f, "{ms}ms"),
            Self::Inputs(count) => write!(f, "{count}"),
        }
    }
}

impl FromStr for Budget {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix("ms") {
            Some(ms) => ms.parse().map(Self::Time),
            None => text.parse().map(Self::Inputs),
        }
    }
}

/// Feeds `target` and answers what was seen. A finding ends the process.
#[must_use]
pub fn work(target: &Target, budget: Budget, seed: u64) -> Report {
    let limit = Rlimit { current: Some(ADDRESS_SPACE), maximum: Some(ADDRESS_SPACE) };
    if let Err(error) = setrlimit(Resource::As, limit) {
        eprintln!("no limit of memory: {error}");
    }
    let mut feeder = Feeder::new(target);
    let seeds = (target.seeds)();
    for (number, input) in seeds.iter().enumerate() {
        // A seed that is refused is of no use.
        assert!(feeder.feed(input) > Reach::Refused, "seed {number} of {} is refused", target.name);
    }
    let mut random = Random::new(seed);
    let mut pool: Vec<Vec<u8>> = Vec::new();
    let done = |feeder: &Feeder<'_>| match budget {
        Budget::Time(ms) => feeder.start.elapsed() >= Duration::from_millis(ms),
        Budget::Inputs(count) => feeder.report.inputs >= count,
    };
    while !done(&feeder) {
        let from = if random.below(2) == 0 { &seeds } else { &pool };
        let Some(base) = random.one(from).or_else(|| random.one(&seeds)) else { break };
        let mut input = base.clone();
        let other = random.one(&seeds).map_or(&[][..], Vec::as_slice);
        mutate(&mut random, &mut input, other, target);
        if feeder.feed(&input) > Reach::Refused {
            if pool.len() < POOL {
                pool.push(input);
            } else if let Some(place) = {
                let at = random.below(POOL);
                pool.get_mut(at)
            } {
                *place = input;
            }
        }
    }
    feeder.finish()
}

struct Feeder<'a> {
    target: &'a Target,
    start: Instant,
    report: Report,
    file: Option<fs::File>,
    /// When the present input began, in milliseconds from `start`; `u64::MAX` between two.
    began: Arc<AtomicU64>,
}

impl<'a> Feeder<'a> {
    fn new(target: &'a Target) -> Self {
        let start = Instant::now();
        let began = Arc::new(AtomicU64::new(u64::MAX));
        let watched = Arc::clone(&began);
        let name = target.name;
        thread::spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(200));
                let began = watched.load(Ordering::Relaxed);
                if milliseconds(start.elapsed()).saturating_sub(began) > milliseconds(PATIENCE) {
                    eprintln!("{name}: an input takes longer than {PATIENCE:?}");
                    // The main thread is the one that hangs.
                    #[allow(clippy::exit, reason = "the parent learns of the finding by it")]
                    process::exit(3);
                }
            }
        });
        let file = fs::File::create(scratch::dir().join(INPUT)).ok();
        Self { target, start, report: Report::default(), file, began }
    }

    fn feed(&mut self, input: &[u8]) -> Reach {
        if let Some(file) = &self.file {
            // If the folder is full the finding lacks its input; the finding counts.
            let _ = file.write_all_at(input, 0).and_then(|()| file.set_len(input.len() as u64));
        }
        let began = Instant::now();
        self.began.store(milliseconds(self.start.elapsed()), Ordering::Relaxed);
        let reach = (self.target.run)(input);
        self.began.store(u64::MAX, Ordering::Relaxed);
        let us = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.report.inputs += 1;
        self.report.parsed += u64::from(reach > Reach::Refused);
        self.report.accepted += u64::from(reach == Reach::Accepted);
        self.report.slowest_us = self.report.slowest_us.max(us);
        reach
    }

    fn finish(self) -> Report {
        Report { total_ms: milliseconds(self.start.elapsed()), peak_kib: peak_kib(), ..self.report }
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Most memory this process ever had; 0 where it is not told.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
