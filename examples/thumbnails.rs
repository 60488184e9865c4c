//! Thumbnails of all pictures in a folder, made by a pool of processes.
//!
//! `cargo run --release --example thumbnails -- [--size N] [--workers N] [--deadline SECONDS] SOURCE TARGET`
//!
//! Decoders meet what the world sends them: a picture that is broken, that has its worker killed, or that takes longer than
//! its deadline costs that picture, and is told of by name. A thumbnail appears whole or not at all. Without a folder it
//! paints some pictures into a temporary one and shows what becomes of them.

use image::{ImageError, Rgb, RgbImage};
use shmkit::{Error, Pool};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// What a worker does: makes one thumbnail, at most `size` pixels wide and high. Gives the picture's pixels.
fn shrink(from: PathBuf, to: PathBuf, size: u32) -> Result<u64, String> {
    let shrink = || -> Result<u64, ImageError> {
        let picture = image::open(&from)?;
        let half_done = to.with_extension("part");
        picture.thumbnail(size, size).save_with_format(&half_done, image::ImageFormat::Png)?;
        std::fs::rename(&half_done, &to)?;
        Ok(u64::from(picture.width()) * u64::from(picture.height()))
    };
    shrink().map_err(|error| error.to_string())
}

/// The files in a folder that are called like pictures, sorted.
fn pictures_in(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::Other(format!("{}: {error}", folder.display())))?;
    let is_picture = |path: &PathBuf| {
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default().to_ascii_lowercase();
        ["png", "jpg", "jpeg"].contains(&kind.as_str())
    };
    let mut pictures: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_picture).collect();
    pictures.sort();
    Ok(pictures)
}

/// A bar on standard error, if somebody looks at it.
fn show_progress(done: usize, all: usize) {
    const WIDTH: usize = 40;
    if std::io::stderr().is_terminal() {
        let filled = WIDTH * done / all.max(1);
        let end = if done == all { "\n" } else { "" };
        eprint!("\r[{}{}] {done}/{all} pictures{end}", "#".repeat(filled), ".".repeat(WIDTH - filled));
        let _ = std::io::stderr().flush();
    }
}

struct Options {
    size: u32,
    workers: usize,
    deadline: Duration,
    folders: Vec<PathBuf>,
}

/// Makes the thumbnails; gives how many pictures there were, and how many of them failed.
fn make_thumbnails(options: &Options, source: &Path, target: &Path) -> Result<(usize, usize), Error> {
    let start = Instant::now();
    let pictures = pictures_in(source)?;
    std::fs::create_dir_all(target)?;
    let pool = Pool::builder().workers(options.workers).retries(1).grace(Duration::from_millis(100)).start()?;
    // Each is a task of its own, whose outcome is its own.
    let tasks: Vec<_> = pictures
        .iter()
        .map(|from| {
            let to = target.join(from.file_name().expect("a file")).with_extension("png");
            pool.task(shrink, (from.clone(), to, options.size)).deadline(options.deadline).submit()
        })
        .collect();
    let (mut pixels, mut failed) = (0, 0);
    for (done, (picture, mut task)) in pictures.iter().zip(tasks).enumerate() {
        match task.get().map_err(|error| error.to_string()).and_then(|outcome| outcome) {
            Ok(size) => pixels += size,
            Err(why) => {
                failed += 1;
                println!("{}: {why}", picture.file_name().expect("a file").display());
            }
        }
        show_progress(done + 1, pictures.len());
    }
    pool.close();
    pool.join()?;
    let speed = pixels as f64 / 1e6 / start.elapsed().as_secs_f64();
    println!("{} thumbnails, {failed} failed, {speed:.1} megapixels/s", pictures.len() - failed);
    Ok((pictures.len(), failed))
}

/// Paints a dozen pictures, and a file that is none.
fn paint(folder: &Path) -> Result<(), Error> {
    for number in 0..12u32 {
        let (width, height) = (240 + 20 * number, 160);
        let picture = RgbImage::from_fn(width, height, |x, y| {
            Rgb([(x * 255 / width) as u8, (y * 255 / height) as u8, (number * 20) as u8])
        });
        picture
            .save(folder.join(format!("picture-{number:02}.png")))
            .map_err(|error| Error::Other(error.to_string()))?;
    }
    std::fs::write(folder.join("torn.png"), b"\x89PNG\r\n\x1a\nand then nothing")?;
    Ok(())
}

fn demonstrate(options: &Options) -> Result<(), Error> {
    let folder = std::env::temp_dir().join(format!("shmkit-thumbnails-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let outcome = paint(&folder).and_then(|()| make_thumbnails(options, &folder, &folder.join("small")));
    std::fs::remove_dir_all(&folder)?;
    match outcome? {
        (13, 1) => Ok(()),
        other => Err(Error::Other(format!("12 of 13 pictures are whole, not as in {other:?}"))),
    }
}

fn options() -> Result<Options, Error> {
    let usage = "usage: thumbnails [--size N] [--workers N] [--deadline SECONDS] [SOURCE TARGET]";
    let wrong = || Error::Other(usage.to_owned());
    let (workers, deadline) = (shmkit::cpu_count(), Duration::from_secs(60));
    let mut options = Options { size: 160, workers, deadline, folders: Vec::new() };
    let mut arguments = std::env::args_os().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|value| value.to_str()?.parse::<f64>().ok()).ok_or_else(wrong);
        match argument.to_str() {
            Some("--size") => options.size = number()? as u32,
            Some("--workers") => options.workers = number()? as usize,
            Some("--deadline") => options.deadline = Duration::try_from_secs_f64(number()?).map_err(|_| wrong())?,
            Some(text) if text.starts_with("--") => return Err(wrong()),
            _ => options.folders.push(argument.into()),
        }
    }
    Ok(options)
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let options = options()?;
    match &options.folders[..] {
        [] => demonstrate(&options),
        [source, target] => match make_thumbnails(&options, source, target)? {
            (_, 0) => Ok(()),
            (all, failed) => Err(Error::Other(format!("{failed} of {all} pictures failed"))),
        },
        _ => Err(Error::Other("it takes two folders: where the pictures are, and where the thumbnails go".to_owned())),
    }
}
