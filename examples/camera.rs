//! A camera: one process writes full-HD frames into a named queue, in place, and two others read them there.
//!
//! `cargo run --release --example camera -- [--frames N] [--name NAME]`, and meanwhile, in a second terminal,
//! `cargo run --release --example camera -- --attach [--name NAME]`, which takes its share of the frames.
//!
//! Not a byte of a frame is copied through a socket or a pipe: the kernel's own count of what the three processes have read
//! and written says so at the end.

use bytemuck::{Pod, Zeroable};
use shmkit::{ChannelError, Element, Error, Process, Segment, Value};
use std::time::{Duration, Instant};

const WIDTH: usize = 1920;
const HEIGHT: usize = 1080;
const BYTES: usize = WIDTH * HEIGHT * 3;
/// Frames that can wait: a quarter of a second.
const BACKLOG: usize = 8;

/// A frame as it lies in the segment.
#[derive(Clone, Copy, Pod, Zeroable, Element)]
#[repr(C)]
struct Frame {
    number: u64,
    /// Sum of all pixels: what the reader must find.
    checksum: u64,
    pixels: [u8; BYTES],
}

/// What a reader found.
#[derive(Debug, Clone, Copy, Default, Pod, Zeroable, Element)]
#[repr(C)]
struct Seen {
    frames: u64,
    wrong: u64,
    /// Bytes that went through `read` and `write` while frames came in.
    through_the_kernel: u64,
    histogram: [u64; 16],
}

/// Bytes this process has passed to and from the kernel.
fn bytes_through_the_kernel() -> u64 {
    let counts = std::fs::read_to_string("/proc/self/io").unwrap_or_default();
    let number = |line: &str| line.split(": ").nth(1).and_then(|number| number.parse::<u64>().ok());
    counts.lines().filter(|line| line.contains("char")).filter_map(number).sum()
}

/// Writes frames straight into the queue's memory.
fn film(name: String, frames: u64) -> shmkit::Result<()> {
    let camera = Segment::open(&name)?;
    let queue = camera.pod_queue::<Frame>("frames").open()?;
    let before = bytes_through_the_kernel();
    for number in 0..frames {
        let mut frame = queue.loan()?;
        frame.number = number;
        let mut checksum = 0;
        for (y, line) in frame.pixels.chunks_exact_mut(WIDTH * 3).enumerate() {
            let shade = (number as usize + y) as u8;
            line.fill(shade);
            checksum += u64::from(shade) * (WIDTH * 3) as u64;
        }
        frame.checksum = checksum;
        frame.commit()?;
    }
    camera.value::<u64>("filmed").open()?.set(bytes_through_the_kernel() - before)
}

/// Reads frames where they lie, until the camera is switched off.
fn watch(name: &str, mut tell: impl FnMut(&Seen) -> shmkit::Result<()>) -> shmkit::Result<Seen> {
    let camera = Segment::open(name)?;
    let queue = camera.pod_queue::<Frame>("frames").open()?;
    let before = bytes_through_the_kernel();
    let mut seen = Seen::default();
    loop {
        let frame = match queue.recv() {
            Ok(frame) => frame,
            Err(Error::Channel(ChannelError::EndOfFile)) => break,
            Err(error) => return Err(error),
        };
        // Sixteen shades, of every pixel's every colour.
        let mut shades = [[0u32; 16]; 4];
        let mut sum = 0u64;
        for line in frame.pixels.chunks_exact(WIDTH * 3) {
            let mut sum_of_line = 0u32;
            for quad in line.chunks_exact(4) {
                for (table, &value) in shades.iter_mut().zip(quad) {
                    table[usize::from(value >> 4)] += 1;
                    sum_of_line += u32::from(value);
                }
            }
            sum += u64::from(sum_of_line);
        }
        for (shade, count) in seen.histogram.iter_mut().enumerate() {
            *count += shades.iter().map(|table| u64::from(table[shade])).sum::<u64>();
        }
        seen.frames += 1;
        seen.wrong += u64::from(sum != frame.checksum);
        seen.through_the_kernel = bytes_through_the_kernel() - before;
        drop(frame);
        tell(&seen)?;
    }
    Ok(seen)
}

fn reader(name: String, result: Value<Seen>) -> shmkit::Result<()> {
    watch(&name, |seen| result.set(*seen)).map(drop)
}

fn attach(name: &str) -> shmkit::Result<()> {
    let mut last = Instant::now();
    let seen = watch(name, |seen| {
        if last.elapsed() > Duration::from_secs(1) {
            last = Instant::now();
            println!("{} frames seen here, {} wrong", seen.frames, seen.wrong);
        }
        Ok(())
    })?;
    println!("the camera is off: {} frames seen here, {} wrong", seen.frames, seen.wrong);
    Ok(())
}

/// Takes the name away, however the program ends.
struct Named<'a>(&'a str);

impl Drop for Named<'_> {
    fn drop(&mut self) {
        let _ = Segment::unlink(self.0);
    }
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let (mut name, mut frames, mut attached) = ("camera".to_owned(), 600, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let usage = || Error::Other("usage: [--frames N] [--name NAME] [--attach]".to_owned());
        match argument.as_str() {
            "--attach" => attached = true,
            "--name" => name = arguments.next().ok_or_else(usage)?,
            "--frames" => frames = arguments.next().and_then(|text| text.parse().ok()).ok_or_else(usage)?,
            _ => return Err(usage()),
        }
    }
    if attached {
        return attach(&name);
    }
    let camera = Segment::create(&name)?;
    let _named = Named(&name);
    let queue = camera.pod_queue::<Frame>("frames").capacity(BACKLOG).loans(4).create()?;
    let filmed = camera.value::<u64>("filmed").create()?;
    println!("{frames} frames of {WIDTH}×{HEIGHT} through the segment {name:?}; look on with --attach");

    let results = [Value::new(Seen::default())?, Value::new(Seen::default())?];
    let start = Instant::now();
    let readers = results
        .iter()
        .enumerate()
        .map(|(n, result)| {
            Process::new(reader).args((name.clone(), result.clone())).name(format!("reader-{}", n + 1)).start()
        })
        .collect::<Result<Vec<_>, _>>()?;
    Process::new(film).args((name.clone(), frames)).name("camera").start()?.join()?.check()?;
    queue.close();
    for reader in &readers {
        reader.join()?.check()?;
    }
    let took = start.elapsed().as_secs_f64();

    let seen = [results[0].get()?, results[1].get()?];
    let total: u64 = seen.iter().map(|seen| seen.frames).sum();
    let histogram: Vec<u64> = (0..16).map(|shade| seen.iter().map(|seen| seen.histogram[shade]).sum()).collect();
    println!(
        "reader-1 saw {} frames, reader-2 {}, another terminal {}",
        seen[0].frames,
        seen[1].frames,
        frames - total
    );
    println!("histogram of the pixels in 16 shades: {histogram:?}");
    let moved = total as f64 * BYTES as f64;
    println!("{:.0} frames/s, {:.2} GB/s", frames as f64 / took, moved / took / 1e9);
    let copied = filmed.get()? + seen.iter().map(|seen| seen.through_the_kernel).sum::<u64>();
    println!(
        "{:.0} MB of frames; through sockets, pipes and files: {copied} bytes in all three processes",
        moved / 1e6
    );
    let wrong = seen.iter().map(|seen| seen.wrong).sum::<u64>();
    // Reading /proc/self/io is all the traffic there is: some hundred bytes a look.
    let stray = copied > 200 * (total + 4);
    if wrong > 0 || stray {
        return Err(Error::Other(format!("{wrong} frames were wrong, {copied} bytes were copied")));
    }
    println!("every frame was whole, none was copied");
    Ok(())
}
