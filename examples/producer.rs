//! A producer whose consumer is another program, started by `Process::command`.
//!
//! `cargo run --release --examples; cargo run --release --example producer -- [--count N] [--kill] [CONSUMER ARGUMENT…]`
//!
//! The consumer (`examples/consumer.rs`, unless another one is named) finds the session in its environment and the objects in it
//! by their names: any program in any language can do so that follows the layout. The readings are written where they are read;
//! the consumer that is killed in the middle (`--kill`) is replaced by another one, which goes on where the dead one was.

use bytemuck::{Pod, Zeroable};
use shmkit::{Element, Error, Process};
use std::path::PathBuf;

/// What is measured. The consumer has the same struct: its fields are compared when it opens the queue.
#[derive(Debug, Clone, Copy, Pod, Zeroable, Element)]
#[repr(C)]
struct Reading {
    number: u64,
    celsius: f64,
}

/// What the consumer makes of them, published in one step.
#[derive(Debug, Clone, Copy, PartialEq, Pod, Zeroable, Element)]
#[repr(C)]
struct Summary {
    count: u64,
    sum: f64,
    highest: f64,
}

/// The weather, as it is: whole numbers, so that sums are exact.
fn measure(number: u64) -> Reading {
    Reading { number, celsius: (number % 41) as f64 - 10.0 }
}

struct Options {
    count: u64,
    kill: bool,
    consumer: Vec<String>,
}

fn options() -> Result<Options, Error> {
    let mut options = Options { count: 100_000, kill: false, consumer: Vec::new() };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--count" => {
                let number = arguments.next().and_then(|number| number.parse().ok());
                options.count = number.ok_or_else(|| Error::Other("--count wants a number".to_owned()))?;
            }
            "--kill" => options.kill = true,
            _ => options.consumer = [argument].into_iter().chain(arguments.by_ref()).collect(),
        }
    }
    if options.consumer.is_empty() {
        let beside: PathBuf = std::env::current_exe()?.with_file_name("consumer");
        options.consumer.push(beside.display().to_string());
    }
    Ok(options)
}

#[shmkit::main]
fn main() -> shmkit::Result<()> {
    let Options { count, kill, consumer } = options()?;
    let session = shmkit::session()?;
    let readings = session.pod_queue::<Reading>("readings").capacity(64).create()?;
    let nothing = Summary { count: 0, sum: 0.0, highest: f64::NEG_INFINITY };
    let summary = session.value::<Summary>("summary").initial(nothing).create()?;

    let (program, arguments) = consumer.split_first().expect("at least the program");
    let start = || Process::command(program).args(arguments).name("consumer").daemon(true).start();
    let mut running = start()?;
    for number in 0..count {
        let mut reading = readings.loan()?;
        *reading = measure(number);
        reading.commit()?;
        if kill && number == count / 2 {
            running.kill()?;
            println!("the consumer ended: {}", running.join()?);
            running = start()?;
        }
    }
    readings.close();
    running.join()?.check()?;

    let celsius = (0..count).map(|number| measure(number).celsius);
    let (sum, highest) = (celsius.clone().sum(), celsius.fold(f64::NEG_INFINITY, f64::max));
    let (seen, expected) = (summary.get()?, Summary { count, sum, highest });
    if seen != expected {
        return Err(Error::Other(format!("the consumer saw {seen:?}, not {expected:?}")));
    }
    println!("{count} readings, {:.3} °C on average, {highest:.1} °C at most", sum / count as f64);
    Ok(())
}
