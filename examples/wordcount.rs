//! Counts lines, words and bytes of all text files under some paths, as `LC_ALL=C wc` does, with a pool of processes.
//!
//! `cargo run --release --example wordcount -- [--workers N] [--alone] [--dict | --kill] [PATH…]`
//!
//! The names of the files go to the workers through a queue, the figures come back in a shared array with a row for each
//! file. A row is written once, whole, or again with the same figures: so a worker that is killed in the middle of a file
//! (`--kill` does that) changes nothing but the time. `--alone` counts in one process, for comparison.
//!
//! With `--dict` the workers also count how often each word occurs, all of them in one shared dict, and the most frequent ones are
//! shown.

use bytemuck::{Pod, Zeroable};
use shmkit::{Array, Element, Error, Pool, Queue, ShardedDict};
use std::collections::HashMap;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What is known of a file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Pod, Zeroable, Element)]
#[repr(C)]
struct Figures {
    /// 0: not counted yet; 1: counted; 2: no text, or not to be read.
    state: u64,
    lines: u64,
    words: u64,
    bytes: u64,
}

const COUNTED: u64 = 1;
const NO_TEXT: u64 = 2;

/// Counts as `wc` does in the C locale: a word is a run without white space that has a printable character in it.
fn count(mut reader: impl Read, buffer: &mut [u8]) -> std::io::Result<Figures> {
    let mut figures = Figures { state: COUNTED, ..Figures::default() };
    let mut in_word = false;
    loop {
        let len = match reader.read(buffer) {
            Ok(0) => break,
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let block = &buffer[..len];
        // Like `grep`: what has a NUL at its beginning is no text.
        if figures.bytes == 0 && block[..len.min(8192)].contains(&0) {
            return Ok(Figures { state: NO_TEXT, ..Figures::default() });
        }
        figures.bytes += len as u64;
        for &byte in block {
            match byte {
                b'\t'..=b'\r' | b' ' => {
                    figures.lines += u64::from(byte == b'\n');
                    figures.words += u64::from(in_word);
                    in_word = false;
                }
                b'!'..=b'~' => in_word = true,
                _ => {}
            }
        }
    }
    figures.words += u64::from(in_word);
    Ok(figures)
}

fn count_file(path: &Path, buffer: &mut [u8]) -> Figures {
    let counted = File::open(path).and_then(|file| count(file, buffer));
    counted.unwrap_or(Figures { state: NO_TEXT, ..Figures::default() })
}

/// Each word's occurrences, which all workers add to.
type Words = ShardedDict<String, u64>;

/// How often the words of a text occur in it. What is not UTF-8 is shown as the replacement character.
fn words_in(text: &[u8], counts: &mut HashMap<String, u64>) {
    let is_space = |byte: &u8| matches!(byte, b'\t'..=b'\r' | b' ');
    for word in text.split(is_space).filter(|word| word.iter().any(u8::is_ascii_graphic)) {
        let word = String::from_utf8_lossy(word);
        match counts.get_mut(&*word) {
            Some(count) => *count += 1,
            None => drop(counts.insert(word.into_owned(), 1)),
        }
    }
}

/// Counts a file, and its words in `counts`.
fn count_words(path: &Path, counts: &mut HashMap<String, u64>) -> Figures {
    let no_text = Figures { state: NO_TEXT, ..Figures::default() };
    let Ok(text) = std::fs::read(path) else { return no_text };
    let figures = count(&text[..], &mut [0; 64 << 10]).unwrap_or(no_text);
    if figures.state == COUNTED {
        words_in(&text, counts);
    }
    figures
}

/// A worker's task with `--dict`: a file's words are put together first, so that each is added once.
fn serve_words(names: Queue<(u64, PathBuf)>, rows: Array<Figures>, words: Words) -> Result<(), String> {
    let mut counts = HashMap::new();
    for name in names.iter() {
        let (row, path) = name.map_err(|error| error.to_string())?;
        let figures = count_words(&path, &mut counts);
        for (word, count) in counts.drain() {
            words.update(&word, |sum| *sum.get_or_insert(0) += count).map_err(|error| error.to_string())?;
        }
        rows.set(row as usize, figures).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A worker's task: counts files until there are none left.
fn serve(names: Queue<(u64, PathBuf)>, rows: Array<Figures>) -> Result<(), String> {
    let mut buffer = vec![0; 256 << 10];
    for name in names.iter() {
        let (row, path) = name.map_err(|error| error.to_string())?;
        rows.set(row as usize, count_file(&path, &mut buffer)).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// All regular files under the paths, sorted; links are not followed.
fn files_under(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    let mut open: Vec<PathBuf> = paths.to_vec();
    while let Some(path) = open.pop() {
        let kind = std::fs::symlink_metadata(&path)
            .map_err(|error| Error::Other(format!("{}: {error}", path.display())))?
            .file_type();
        if kind.is_dir() {
            // A directory that may not be read holds nothing for us.
            open.extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if kind.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The sources in cargo's registry if there are some, else this project.
fn default_path() -> PathBuf {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let sources = home.map(|home| home.join("registry/src")).filter(|path| path.is_dir());
    sources.unwrap_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")))
}

fn progress(done: usize, all: usize) {
    const WIDTH: usize = 40;
    let filled = WIDTH * done / all.max(1);
    eprint!("\r[{}{}] {done}/{all} files", "#".repeat(filled), ".".repeat(WIDTH - filled));
    let _ = std::io::stderr().flush();
}

struct Options {
    workers: usize,
    alone: bool,
    dict: bool,
    kill: bool,
    paths: Vec<PathBuf>,
}

fn options() -> Result<Options, Error> {
    let mut options =
        Options { workers: shmkit::cpu_count(), alone: false, dict: false, kill: false, paths: Vec::new() };
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str() {
            Some("--alone") => options.alone = true,
            Some("--dict") => options.dict = true,
            Some("--kill") => options.kill = true,
            Some("--workers") => {
                let number = arguments.next().and_then(|number| number.to_str()?.parse().ok());
                options.workers = number.ok_or_else(|| Error::Other("--workers wants a number".to_owned()))?;
            }
            Some(text) if text.starts_with("--") => {
                return Err(Error::Other(format!("{text}? usage: [--workers N] [--alone] [--dict | --kill] [PATH…]")));
            }
            _ => options.paths.push(argument.into()),
        }
    }
    if options.dict && options.kill {
        // A killed worker's file is counted again: a row is as good as before then, a word's sum is not.
        return Err(Error::Other("--dict or --kill, not both".to_owned()));
    }
    if options.paths.is_empty() {
        options.paths.push(default_path());
    }
    Ok(options)
}

/// Counts all files with a pool, and their words if they are asked for.
fn count_together(files: &[PathBuf], workers: usize, kill: bool, words: Option<&Words>) -> Result<Vec<Figures>, Error> {
    let rows = Array::<Figures>::new(files.len().max(1))?;
    let shows = std::io::stderr().is_terminal();
    // What a killed worker had in its hands is sent once more, until no row is missing.
    loop {
        let missing: Vec<usize> = missing(&rows, files.len())?;
        if missing.is_empty() {
            break;
        }
        let names = Queue::bounded(256)?;
        let pool = Pool::builder().workers(workers).retries(1).start()?;
        let tasks: Vec<_> = (0..workers)
            .map(|_| match words {
                None => pool.apply_async(serve, (names.clone(), rows.clone())),
                Some(words) => pool.apply_async(serve_words, (names.clone(), rows.clone(), words.clone())),
            })
            .collect();
        for (sent, row) in missing.iter().enumerate() {
            names.put((*row as u64, files[*row].clone()))?;
            if kill && sent == missing.len() / 2 && missing.len() == files.len() {
                let victim = pool.worker_pids()[0];
                println!("killing worker {victim} in the middle");
                // SAFETY: kill has no preconditions.
                unsafe { libc::kill(victim as i32, libc::SIGKILL) };
            }
            if shows && sent % 64 == 0 {
                progress(sent, missing.len());
            }
        }
        names.close();
        for mut task in tasks {
            while !task.wait_timeout(Duration::from_millis(100)) {
                if shows {
                    progress(missing.len() - names.len(), missing.len());
                }
            }
            task.get()?.map_err(Error::Other)?;
        }
        if shows {
            progress(missing.len(), missing.len());
            eprintln!();
        }
    }
    let mut figures = rows.to_vec()?;
    figures.truncate(files.len());
    Ok(figures)
}

fn missing(rows: &Array<Figures>, files: usize) -> Result<Vec<usize>, Error> {
    Ok(rows.to_vec()?.iter().take(files).enumerate().filter(|(_, row)| row.state == 0).map(|(row, _)| row).collect())
}

/// The ten most frequent words, and how many there are.
fn show_words(mut words: Vec<(String, u64)>) {
    words.sort_unstable_by(|(a, most), (b, more)| more.cmp(most).then_with(|| a.cmp(b)));
    for (word, count) in words.iter().take(10) {
        println!("{count:>10} {word}");
    }
    println!("{:>10} words, {} of them different", words.iter().map(|(_, count)| count).sum::<u64>(), words.len());
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let Options { workers, alone, dict, kill, paths } = options()?;
    let start = Instant::now();
    let files = files_under(&paths)?;
    let mut buffer = vec![0; 256 << 10];
    let figures = match (alone, dict) {
        (true, false) => files.iter().map(|path| count_file(path, &mut buffer)).collect(),
        (true, true) => {
            let mut counts = HashMap::new();
            let figures = files.iter().map(|path| count_words(path, &mut counts)).collect();
            show_words(counts.into_iter().collect());
            figures
        }
        (false, false) => count_together(&files, workers, kill, None)?,
        (false, true) => {
            let words = Words::new()?;
            let figures = count_together(&files, workers, kill, Some(&words))?;
            show_words(words.items()?);
            figures
        }
    };
    let texts: Vec<&Figures> = figures.iter().filter(|figures| figures.state == COUNTED).collect();
    let sum = |part: fn(&Figures) -> u64| texts.iter().map(|figures| part(figures)).sum::<u64>();
    let (lines, words, bytes) = (sum(|f| f.lines), sum(|f| f.words), sum(|f| f.bytes));
    println!("{lines} {words} {bytes} {}", texts.len());
    let took = start.elapsed().as_secs_f64();
    let by = if alone { "one process".to_owned() } else { format!("{workers} workers") };
    println!("{:.1} MB/s, {:.0} files/s with {by} ({took:.2} s)", bytes as f64 / took / 1e6, texts.len() as f64 / took);
    Ok(())
}
