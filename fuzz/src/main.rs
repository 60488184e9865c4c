//! The fuzzer without coverage, for every machine: `cargo run --release -p shmkit-fuzz -- --seconds 10 --seed 1`.
//!
//! It chooses operations by chance, and changes the template where it hurts: single words of the header, the registry, the directory, the heap and the
//! bodies, with values that are likely to be taken for something. A crash ends the process with the input's seed on the
//! screen; a case that takes longer than ten seconds is a hang, and ends it too.
//!
//! With `--scribble` a peer writes over the segment at the same time: see `peer`.

use shmkit_fuzz::peer::{self, Random};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A case may take this long: far more than the slowest needs on a slow machine.
const HANG: Duration = Duration::from_secs(10);

/// One input from one seed.
fn input(seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let pages = &shmkit_fuzz::template().pages;
    let steps = random.below(40);
    let mut input = vec![random.below(4) as u8, steps as u8];
    input.extend((0..2 * steps).map(|_| random.next() as u8));
    // None at times: then the segment stays a sound one.
    for _ in 0..random.below(8) {
        let (page, bytes) = &pages[random.below(pages.len() as u64) as usize];
        // Words that hold something are worth more than the zeros between them.
        let mut at = random.below(512) as usize * 8;
        for _ in 0..8 {
            if bytes[at..at + 8].iter().any(|&byte| byte != 0) {
                break;
            }
            at = random.below(512) as usize * 8;
        }
        let old = u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"));
        let (_, page_of_other) = &pages[random.below(pages.len() as u64) as usize];
        let from = random.below(512) as usize * 8;
        let other = u64::from_le_bytes(page_of_other[from..from + 8].try_into().expect("8 bytes"));
        let new = random.word(old, other);
        let offset = page + at as u64;
        input.extend(&offset.to_le_bytes()[..3]);
        input.push(7);
        input.extend(new.to_le_bytes());
    }
    input
}

static CURRENT: Mutex<Option<(u64, Instant)>> = Mutex::new(None);

fn set_current(current: Option<(u64, Instant)>) {
    *CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = current;
}

fn watch() {
    std::thread::spawn(|| {
        loop {
            std::thread::sleep(Duration::from_secs(1));
            let current = *CURRENT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if let Some((seed, since)) = current.filter(|(_, since)| since.elapsed() > HANG) {
                eprintln!("fuzz: seed {seed} hangs since {:?}: run with --only {seed}", since.elapsed());
                std::process::abort();
            }
        }
    });
}

fn main() -> ExitCode {
    let (mut seconds, mut seed, mut only, mut is_scribbled) = (10, None, None, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "peer" {
            let (path, seed) = (arguments.next(), arguments.next().and_then(|seed| seed.parse().ok()));
            peer::scribble(&path.expect("a path"), seed.expect("a seed"));
            return ExitCode::SUCCESS;
        }
        if argument == "--scribble" {
            is_scribbled = true;
            continue;
        }
        let number = arguments.next().and_then(|number| number.parse::<u64>().ok());
        match (argument.as_str(), number) {
            ("--seconds", Some(number)) => seconds = number,
            ("--seed", Some(number)) => seed = Some(number),
            ("--only", Some(number)) => only = Some(number),
            _ => {
                eprintln!("usage: shmkit-fuzz [--scribble] [--seconds N] [--seed N] [--only SEED]");
                return ExitCode::from(2);
            }
        }
    }
    if let Some(only) = only.filter(|_| is_scribbled) {
        watch();
        set_current(Some((only, Instant::now())));
        peer::case(only);
        println!("fuzz: seed {only} is harmless this time");
        return ExitCode::SUCCESS;
    }
    if let Some(only) = only {
        println!("fuzz: input {:02x?}", input(only));
        shmkit_fuzz::run(&input(only));
        println!("fuzz: seed {only} is harmless");
        return ExitCode::SUCCESS;
    }
    let first = seed
        .unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_nanos() as u64) >> 16);
    println!("fuzz: seed {first}");
    watch();
    std::panic::set_hook(Box::new(|panic| {
        let current = CURRENT.lock().map_or(None, |current| *current);
        let trace = std::backtrace::Backtrace::capture();
        eprintln!("fuzz: {panic}\n{trace}\nfuzz: found by --only {}", current.map_or(0, |(seed, _)| seed));
    }));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut cases = 0;
    while Instant::now() < end {
        let seed = first.wrapping_add(cases);
        set_current(Some((seed, Instant::now())));
        let run = || if is_scribbled { peer::case(seed) } else { shmkit_fuzz::run(&input(seed)) };
        if std::panic::catch_unwind(run).is_err() {
            return ExitCode::FAILURE;
        }
        cases += 1;
    }
    set_current(None);
    println!("fuzz: {cases} cases{}, nothing found", if is_scribbled { " with a scribbling peer" } else { "" });
    ExitCode::SUCCESS
}
