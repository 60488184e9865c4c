//! A log processor: three stages, each a process, with a queue between each two.
//!
//! `cargo run --release --example logs -- [--alone] [--kill N] [FILE]`
//!
//! ```text
//! read ──lines──▶ parse ──records──▶ count ──▶ the report
//! ```
//! A line stays in its queue until the parser is done with it, so that a parser that is killed in the middle of a line (`--kill N`
//! does that N times) loses nothing: the next one gets the line again. What the dead one had passed on already comes twice, then,
//! with the same number, and the counter counts a number once. So the report is the same, whoever was killed; `--alone` makes it
//! in one process, for comparison. Without a file it reads 20,000 lines that it makes up.

use serde::{Deserialize, Serialize};
use shmkit::{Error, JoinableQueue, Process, Queue, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

/// Lines, or records, that a stage may be ahead of the next one.
const AHEAD: usize = 256;
/// Lines after which a parser is killed that is to be.
const EACH: u64 = 500;

/// A line of the log and its number.
type Line = (u64, String);

/// What there is in a line, and the line's number.
type Record = (u64, Option<Request>);

/// What a web server has to say of one request.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Request {
    path: String,
    status: u16,
    bytes: u64,
}

/// Reads a line in the Common Log Format: `host ident user [time] "GET /path HTTP/1.1" status bytes`.
fn parse(line: &str) -> Option<Request> {
    let (_, rest) = line.split_once('"')?;
    let (request, rest) = rest.split_once('"')?;
    let path = request.split(' ').nth(1)?.to_owned();
    let mut numbers = rest.split_whitespace();
    let status = numbers.next()?.parse().ok()?;
    let bytes = numbers.next()?;
    let bytes = if bytes == "-" { 0 } else { bytes.parse().ok()? };
    Some(Request { path, status, bytes })
}

/// What becomes of them all.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Report {
    requests: u64,
    malformed: u64,
    bytes: u64,
    statuses: BTreeMap<u16, u64>,
    paths: BTreeMap<String, u64>,
}

impl Report {
    fn add(&mut self, request: Option<Request>) {
        let Some(Request { path, status, bytes }) = request else {
            self.malformed += 1;
            return;
        };
        self.requests += 1;
        self.bytes += bytes;
        *self.statuses.entry(status).or_default() += 1;
        *self.paths.entry(path).or_default() += 1;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Report { requests, malformed, bytes, statuses, paths } = self;
        writeln!(f, "{requests} requests, {bytes} bytes, {malformed} lines that are none")?;
        statuses.iter().try_for_each(|(status, count)| writeln!(f, "  {status}: {count}"))?;
        let mut paths: Vec<_> = paths.iter().collect();
        paths.sort_by_key(|&(path, count)| (std::cmp::Reverse(count), path));
        paths.iter().take(5).try_for_each(|(path, count)| writeln!(f, "  {path}: {count}"))
    }
}

// ---- the lines -----------------------------------------------------------------------------------------------------------

const MADE_UP: u64 = 20_000;

/// A line of a log that never was: each number has its own.
fn made_up(number: u64) -> String {
    let dice = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
    if dice.is_multiple_of(97) {
        return "the disk is full".to_owned();
    }
    let path = ["/", "/about", "/news", "/shop", "/cart", "/favicon.ico"][(dice % 6) as usize];
    let status = [200, 200, 200, 304, 404, 500][(dice / 6 % 6) as usize];
    format!("127.0.0.1 - - [01/Nov/2026:00:00:00 +0000] \"GET {path} HTTP/1.1\" {status} {}", dice % 5000)
}

fn lines_of(file: Option<PathBuf>) -> Result<Box<dyn Iterator<Item = std::io::Result<String>>>, Error> {
    let Some(path) = file else { return Ok(Box::new((0..MADE_UP).map(|number| Ok(made_up(number))))) };
    let file = File::open(&path).map_err(|error| Error::Other(format!("{}: {error}", path.display())))?;
    Ok(Box::new(BufReader::new(file).lines()))
}

// ---- the stages ----------------------------------------------------------------------------------------------------------

fn read_stage(file: Option<PathBuf>, lines: JoinableQueue<Line>) -> Result<(), Error> {
    for (number, line) in (0..).zip(lines_of(file)?) {
        lines.put((number, line?))?;
    }
    Ok(())
}

/// A line is done when its record is in the next queue, and not before.
fn parse_stage(lines: JoinableQueue<Line>, records: Queue<Record>) -> Result<(), Error> {
    loop {
        let task = match lines.get_task() {
            Err(Error::Channel(shmkit::ChannelError::EndOfFile)) => return Ok(()),
            task => task?,
        };
        let (number, line) = &*task;
        records.put((*number, parse(line)))?;
        task.done()?;
    }
}

fn count_stage(records: Queue<Record>, counted: Value<u64>, report: Queue<Report>) -> Result<(), Error> {
    let (mut total, mut seen) = (Report::default(), BTreeSet::new());
    for record in records.iter() {
        let (number, request) = record?;
        if seen.insert(number) {
            total.add(request);
            counted.fetch_add(1);
        }
    }
    report.put(total)
}

/// Runs the stages. A parser that dies is replaced; the first `kills` of them are killed after some hundred lines.
fn process(file: Option<PathBuf>, kills: u64) -> Result<Report, Error> {
    let lines = JoinableQueue::<Line>::bounded(AHEAD)?;
    let records = Queue::<Record>::bounded(AHEAD)?;
    let (counted, report) = (Value::new(0)?, Queue::<Report>::bounded(1)?);
    let reader = Process::new(read_stage).args((file, lines.clone())).name("read").daemon(true).start()?;
    let arguments = (records.clone(), counted.clone(), report.clone());
    let counter = Process::new(count_stage).args(arguments).name("count").daemon(true).start()?;
    // Whatever becomes of the stages at both ends, the one between them does not wait for them for ever.
    let (first, last) = (reader.clone(), counter.clone());
    let (source, sink) = (lines.clone(), records.clone());
    thread::spawn(move || first.join().map(|_| source.close()));
    thread::spawn(move || last.join().map(|_| sink.shutdown(true)));
    for restarts in 0.. {
        let arguments = (lines.clone(), records.clone());
        let parser = Process::new(parse_stage).args(arguments).name("parse").daemon(true).start()?;
        if restarts < kills {
            let enough = (restarts + 1) * EACH;
            while counted.load() < enough && parser.join_timeout(Duration::from_millis(1)).is_err() {}
            parser.kill()?;
        }
        let status = parser.join()?;
        if status.signal().is_none() {
            status.check()?;
            break;
        }
        println!("the parser was {status}: another one goes on");
    }
    lines.join()?;
    records.close();
    for stage in [reader, counter] {
        stage.join()?.check()?;
    }
    report.get()
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let (mut alone, mut kills, mut file) = (false, 0, None);
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--alone") => alone = true,
            Some("--kill") => {
                let number = arguments.next().and_then(|number| number.to_str()?.parse().ok());
                kills = number.ok_or_else(|| Error::Other("--kill wants a number".to_owned()))?;
            }
            Some(text) if text.starts_with("--") => {
                return Err(Error::Other(format!("{text}? usage: logs [--alone] [--kill N] [FILE]")));
            }
            _ => file = Some(argument.into()),
        }
    }
    let report = if alone {
        let mut report = Report::default();
        for line in lines_of(file)? {
            report.add(parse(&line?));
        }
        report
    } else {
        process(file, kills)?
    };
    print!("{report}");
    Ok(())
}
