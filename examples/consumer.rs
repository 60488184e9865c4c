//! The other side of `examples/producer.rs`: a program of its own that knows nothing of the producer but two names.
//!
//! It is started by the producer, and finds the session in its environment (`SHMKIT_SESSION_FD`, or `SHMKIT_SESSION`).

use bytemuck::{Pod, Zeroable};
use shmkit::{Element, Error};

/// The producer's struct: names and fields are compared when the queue is opened.
#[derive(Debug, Clone, Copy, Pod, Zeroable, Element)]
#[repr(C)]
struct Reading {
    number: u64,
    celsius: f64,
}

/// What is known of the readings up to now.
#[derive(Debug, Clone, Copy, Pod, Zeroable, Element)]
#[repr(C)]
struct Summary {
    count: u64,
    sum: f64,
    highest: f64,
}

fn main() -> Result<(), Error> {
    let session = shmkit::session()?;
    let readings = session.pod_queue::<Reading>("readings").open()?;
    let summary = session.value::<Summary>("summary").open()?;
    for reading in readings.iter() {
        let reading = reading?;
        summary.update(|summary| {
            // A reading comes twice if the consumer before this one was killed with it: the summary says whether it was counted.
            if reading.number == summary.count {
                summary.count += 1;
                summary.sum += reading.celsius;
                summary.highest = summary.highest.max(reading.celsius);
            }
        })?;
    }
    Ok(())
}
