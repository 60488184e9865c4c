//! Which runs a grid has: pure functions of operation, instruction and seed, so that those three reproduce any run.

use crate::random::mix;
use crate::step::Trace;
use std::time::Duration;

/// How much of the grid is run.
#[derive(Debug, Clone, Copy)]
pub struct Extent {
    /// The most kills in one act, each at its own instruction.
    pub kills: u32,
    /// The same for whoever recovers somebody who died in it.
    pub recoveries: u32,
    /// For how many places of the corpse.
    pub corpses: u64,
    /// Pairs: a kill while another participant is stopped.
    pub pairs: u32,
    /// Somebody is stopped, nobody is killed.
    pub halts: u32,
    /// Acts of many threads or processes have one run in so many.
    pub thin: u32,
    /// And of kills at most that many.
    pub most_of_many: u32,
    /// One kill in so many is found out by the survivors alone.
    pub lazy: u64,
    /// Which instructions are candidates.
    pub choice: Choice,
    /// In how many passes all operations are gone through, each time with a part of their runs. The first is never left out.
    pub passes: u32,
    /// After which time no operation begins another pass.
    pub time: Duration,
}

/// After which instructions somebody may be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// After each.
    Every,
    /// After those behind which others can see something new.
    News,
    /// Two of three of the kind [`Choice::News`], the others anywhere.
    Mixed,
}

impl Extent {
    /// For every change: minutes.
    pub const QUICK: Extent = Extent {
        kills: 360,
        recoveries: 64,
        corpses: 1,
        pairs: 60,
        halts: 40,
        thin: 6,
        most_of_many: u32::MAX,
        lazy: 16,
        choice: Choice::Mixed,
        passes: 8,
        time: Duration::from_secs(300),
    };
    /// Every instruction behind which others can see something new: about half an hour.
    pub const NEWS: Extent = Extent {
        kills: u32::MAX,
        recoveries: u32::MAX,
        corpses: 4,
        pairs: 100,
        halts: 100,
        thin: 2,
        most_of_many: 500,
        lazy: 8,
        choice: Choice::News,
        passes: 1,
        time: Duration::MAX,
    };
    /// Every instruction.
    pub const FULL: Extent = Extent {
        kills: u32::MAX,
        recoveries: u32::MAX,
        corpses: 1,
        pairs: 300,
        halts: 200,
        thin: 1,
        most_of_many: u32::MAX,
        lazy: 8,
        choice: Choice::Every,
        passes: 1,
        time: Duration::MAX,
    };
}

/// What kind of run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody is killed.
    Kill,
    /// Somebody is killed, and nobody is told.
    Lazy,
    /// Somebody is killed while another one is stopped.
    Pair,
    /// Somebody is stopped and goes on.
    Halt,
}

/// One run of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// The victim's instruction.
    pub count: u32,
    /// What kind.
    pub kind: Kind,
    /// What everything else follows from.
    pub seed: u64,
}

/// How many pairs there are at most of one instruction.
const MOST_ROUNDS: u32 = 6;

/// A number that depends on a name.
pub fn mix_name(seed: u64, name: &str) -> u64 {
    mix(&[seed, name.bytes().fold(0, |sum, byte| mix(&[sum, u64::from(byte)]))])
}

/// At most `most` of the numbers 0 to `len`, spread evenly, by `seed`; all of them if they are no more.
fn spread(len: u32, most: u32, seed: u64) -> Vec<u32> {
    let all = u64::from(len) + 1;
    if all <= u64::from(most) {
        return (0..=len).collect();
    }
    let most = u64::from(most);
    let step = |k: u64| {
        let (first, next) = (k * all / most, (k + 1) * all / most);
        (first + mix(&[seed, k]) % (next - first)) as u32
    };
    (0..most).map(step).collect()
}

/// At most `most` instructions of a trace.
fn chosen(choice: Choice, trace: &Trace, most: u32, seed: u64) -> Vec<u32> {
    let news = |most| -> Vec<u32> {
        let places = spread(trace.news.len() as u32 - 1, most, seed);
        places.into_iter().map(|place| trace.news[place as usize]).collect()
    };
    match choice {
        Choice::Every => spread(trace.len, most, seed),
        Choice::News => news(most),
        Choice::Mixed => {
            let mut all = news(most - most / 3);
            all.extend(spread(trace.len, most - all.len() as u32, seed));
            all.sort_unstable();
            all.dedup();
            all
        }
    }
}

/// The runs of an operation for one seed.
pub fn points(extent: &Extent, is_recovery: bool, has_pairs: bool, trace: &Trace, seed: u64) -> Vec<Point> {
    let most = if is_recovery { extent.recoveries } else { extent.kills };
    let mut points = Vec::new();
    for count in chosen(extent.choice, trace, most, seed) {
        let is_lazy = mix(&[seed, u64::from(count), 1]).is_multiple_of(extent.lazy);
        points.push(Point { count, kind: if is_lazy { Kind::Lazy } else { Kind::Kill }, seed });
    }
    if has_pairs {
        let pairs = chosen(extent.choice, trace, extent.pairs, mix(&[seed, 2]));
        // Few instructions, and the other one can be anywhere in any act.
        let rounds = match extent.choice {
            Choice::News => (extent.pairs / pairs.len() as u32).clamp(1, MOST_ROUNDS),
            Choice::Every | Choice::Mixed => 1,
        };
        let seeds = (0..rounds).map(|round| if round == 0 { seed } else { mix(&[seed, u64::from(round), 8]) });
        points.extend(seeds.flat_map(|seed| pairs.iter().map(move |&count| Point { count, kind: Kind::Pair, seed })));
    }
    let halts = if is_recovery { extent.halts / 4 } else { extent.halts };
    let halts = chosen(extent.choice, trace, halts, mix(&[seed, 5]));
    points.extend(halts.into_iter().map(|count| Point { count, kind: Kind::Halt, seed }));
    if extent.passes > 1 {
        // The time may be up in the middle of a pass: then some of every kind were run.
        points.sort_by_key(|point| mix(&[seed, u64::from(point.count), point.kind as u64, 7]));
        // However short it is, somebody is killed.
        let kill = points.iter().position(|point| point.kind != Kind::Halt);
        points.swap(0, kill.unwrap_or(0));
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::Way;

    #[test]
    fn a_short_operation_is_run_whole_and_a_long_one_is_sampled_evenly() {
        assert_eq!(spread(3, 4, 1), [0, 1, 2, 3]);
        let some = spread(9999, 100, 7);
        assert_eq!(some.len(), 100);
        assert!(some.windows(2).all(|pair| pair[0] < pair[1]));
        assert!(some.iter().enumerate().all(|(k, &n)| n as usize / 100 == k));
        assert_ne!(some, spread(9999, 100, 8));
    }

    #[test]
    fn the_same_seed_gives_the_same_runs() {
        let way = Way { places: vec![0; 5000], news: vec![7, 4000], code: 0..0 };
        let trace = Trace::new(&way, false);
        let points = |seed| points(&Extent::QUICK, false, true, &trace, seed);
        assert_eq!(points(5), points(5));
        assert_ne!(points(5), points(6));
        let killed = |count| points(5).iter().any(|point| point.count == count && point.kind != Kind::Halt);
        assert!(trace.news.iter().all(|&count| killed(count)));
        assert!((0..100).all(|seed| points(seed)[0].kind != Kind::Halt));
    }
}
