//! Benches message types of one's own beside the project's:
//! `cargo run --release -p shmkit-benches --features peers --example own_payload -- --quick --only reading,sample`.

use shmkit::Element;
use shmkit::bytemuck::{Pod, Zeroable};
use shmkit_benches::{Payload, Suite};
use std::process::ExitCode;

/// What a sensor says.
#[derive(Clone, Copy, Pod, Zeroable, Element)]
#[bytemuck(crate = "shmkit::bytemuck")]
#[element(name = "reading")]
#[repr(C)]
struct Reading {
    time: u64,
    position: [f64; 3],
    samples: [i16; 32],
}

impl Payload for Reading {
    fn fill(&mut self, sequence: u64) {
        self.time = sequence;
        self.position = [sequence as f64; 3];
        self.samples.fill(sequence as i16);
    }

    fn digest(&self) -> u64 {
        let position = self.position.iter().map(|number| number.to_bits()).fold(0, u64::wrapping_add);
        let samples: u64 = self.samples.iter().map(|&sample| u64::from(sample as u16)).sum();
        self.time.wrapping_add(position).wrapping_add(samples)
    }
}

/// One of its samples: 12 bytes, which is no multiple of a word.
#[derive(Clone, Copy, Pod, Zeroable, Element)]
#[bytemuck(crate = "shmkit::bytemuck")]
#[element(name = "sample")]
#[repr(C)]
struct Sample {
    number: u32,
    values: [f32; 2],
}

impl Payload for Sample {
    fn fill(&mut self, sequence: u64) {
        self.number = sequence as u32;
        self.values = [sequence as f32; 2];
    }

    fn digest(&self) -> u64 {
        let values: u64 = self.values.iter().map(|value| u64::from(value.to_bits())).sum();
        u64::from(self.number).wrapping_add(values)
    }
}

fn main() -> ExitCode {
    Suite::standard().payload::<Reading>().payload::<Sample>().main(&std::env::args().skip(1).collect::<Vec<_>>())
}
