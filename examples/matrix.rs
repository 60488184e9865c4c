//! Multiplies two matrices that lie in shared arrays: with a pool of processes, with rayon's threads, and alone.
//!
//! `cargo run --release --example matrix -- [--size N] [--workers N]`
//!
//! Nothing is copied and nothing is serialised but the numbers of the rows: each task multiplies a band of rows in place, as each
//! of rayon's does. All three use the same kernel, so that the results are the same to the last bit, which is checked.

use rayon::prelude::*;
use shmkit::{Array, Error, Pool};
use std::time::{Duration, Instant};

/// Columns of `b` that are used again and again while they are in the cache.
const BLOCK: usize = 64;

/// One band of rows of `c = a · b`; `a` has the same rows, and `b` is whole.
fn multiply_band(a: &[f64], b: &[f64], c: &mut [f64], n: usize) {
    c.fill(0.0);
    for block in (0..n).step_by(BLOCK) {
        for (row, out) in a.chunks_exact(n).zip(c.chunks_exact_mut(n)) {
            for k in block..(block + BLOCK).min(n) {
                for (x, y) in out.iter_mut().zip(&b[k * n..(k + 1) * n]) {
                    *x += row[k] * y;
                }
            }
        }
    }
}

/// A task: the rows from `first` to before `end`.
fn multiply_rows(a: Array<f64>, b: Array<f64>, c: Array<f64>, n: usize, first: usize, end: usize) {
    let rows = first * n..end * n;
    assert!(a.len() == n * n && b.len() == n * n && c.len() == n * n && rows.end <= n * n && rows.start <= rows.end);
    // SAFETY: inside the arrays, as was just checked. Nobody writes `a` and `b` while tasks run, and each band of `c` is one
    // task's alone: a band whose worker died is given to the next one when the dead one cannot write any more.
    let (a, b, c) = unsafe {
        (
            std::slice::from_raw_parts(a.as_ptr().add(rows.start), rows.len()),
            std::slice::from_raw_parts(b.as_ptr(), n * n),
            std::slice::from_raw_parts_mut(c.as_ptr().add(rows.start), rows.len()),
        )
    };
    multiply_band(a, b, c, n);
}

/// Bands of rows: some for each worker, so that nobody waits long for the last one.
fn bands(n: usize, workers: usize) -> impl Iterator<Item = (usize, usize)> {
    let rows = n.div_ceil(4 * workers).max(1);
    (0..n).step_by(rows).map(move |first| (first, (first + rows).min(n)))
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    let done = work();
    (done, start.elapsed())
}

fn show(what: &str, n: usize, took: Duration) {
    let operations = 2.0 * (n as f64).powi(3);
    println!("{what:>18}: {:8.1} ms, {:6.2} GFLOP/s", took.as_secs_f64() * 1e3, operations / took.as_secs_f64() / 1e9);
}

fn number(arguments: &mut impl Iterator<Item = String>, what: &str) -> Result<usize, Error> {
    let number = arguments.next().and_then(|text| text.parse().ok()).filter(|&number| number > 0);
    number.ok_or_else(|| Error::Other(format!("{what} wants a number")))
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let (mut n, mut workers) = (512, shmkit::cpu_count());
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--size" => n = number(&mut arguments, "--size")?,
            "--workers" => workers = number(&mut arguments, "--workers")?,
            _ => return Err(Error::Other(format!("{argument}? usage: matrix [--size N] [--workers N]"))),
        }
    }
    let a: Vec<f64> = (0..n * n).map(|i| (i % 17) as f64 - 8.0).collect();
    let b: Vec<f64> = (0..n * n).map(|i| 1.0 / (1 + i % 23) as f64).collect();

    let mut alone = vec![0.0; n * n];
    let ((), took) = timed(|| multiply_band(&a, &b, &mut alone, n));
    show("one thread", n, took);

    let threads = rayon::ThreadPoolBuilder::new().num_threads(workers).build();
    let threads = threads.map_err(|error| Error::Other(error.to_string()))?;
    let mut with_rayon = vec![0.0; n * n];
    let rows = n.div_ceil(4 * workers).max(1);
    let ((), took) = timed(|| {
        threads.install(|| {
            let bands = a.par_chunks(rows * n).zip(with_rayon.par_chunks_mut(rows * n));
            bands.for_each(|(a, c)| multiply_band(a, &b, c, n));
        });
    });
    show("rayon's threads", n, took);

    let pool = Pool::builder().workers(workers).retries(1).start()?;
    let shared = (Array::from_slice(&a)?, Array::from_slice(&b)?, Array::<f64>::new(n * n)?);
    let tasks = || {
        let (a, b, c) = &shared;
        bands(n, workers).map(|(first, end)| (a.clone(), b.clone(), c.clone(), n, first, end))
    };
    // Once to have the pages of the arrays mapped in every worker, then for the clock.
    pool.tasks(multiply_rows, tasks()).chunk(1).run()?;
    let (done, took) = timed(|| pool.tasks(multiply_rows, tasks()).chunk(1).run());
    done?;
    show("shmkit's processes", n, took);

    let product = shared.2.to_vec()?;
    let same = |one: &[f64], other: &[f64]| one.iter().zip(other).all(|(x, y)| x.to_bits() == y.to_bits());
    if !same(&alone, &with_rayon) || !same(&alone, &product) {
        return Err(Error::Other("the products differ".to_owned()));
    }
    println!("all three agree in every bit of {n} × {n} numbers");
    Ok(())
}
