//! `#[derive(Element)]`: names, formats and hashes.

use shmkit::Element;
use shmkit::bytemuck::{Pod, Zeroable};

macro_rules! element {
    ($(#[$meta:meta])* struct $name:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        #[derive(Clone, Copy, Pod, Zeroable, Element)]
        #[bytemuck(crate = "shmkit::bytemuck")]
        $(#[$meta])*
        #[repr(C)]
        #[allow(dead_code, reason = "only the types are looked at")]
        struct $name { $($field: $ty),* }
    };
}

element!(
    struct Point {
        x: f64,
        y: f64,
    }
);
element!(
    #[element(name = "point")]
    struct Dot {
        x: f64,
        y: f64,
    }
);
element!(
    struct Swapped {
        y: f64,
        x: f64,
    }
);
element!(
    struct Renamed {
        x: f64,
        z: f64,
    }
);
element!(
    struct Whole {
        x: i64,
        y: i64,
    }
);
element!(
    struct Line {
        from: Point,
        to: Point,
    }
);
element!(
    struct OtherLine {
        from: Swapped,
        to: Point,
    }
);
element!(
    struct Pixels {
        rows: [[u8; 3]; 2],
        r#type: u16,
    }
);

#[test]
fn the_name_is_the_structs_or_the_given_one() {
    assert_eq!(Point::NAME, "Point");
    assert_eq!(Dot::NAME, "point");
}

#[test]
fn the_format_is_what_numpy_reads() {
    assert_eq!(Point::FORMAT.as_str(), "T{<d:x:<d:y:}");
    assert_eq!(Line::FORMAT.as_str(), "T{T{<d:x:<d:y:}:from:T{<d:x:<d:y:}:to:}");
    assert_eq!(Pixels::FORMAT.as_str(), "T{(2)(3)B:rows:<H:type:}");
}

#[test]
fn the_hash_tells_structures_apart_and_not_names() {
    assert_eq!(Point::HASH, Dot::HASH);
    let different = [Point::HASH, Swapped::HASH, Renamed::HASH, Whole::HASH, Line::HASH, OtherLine::HASH, Pixels::HASH];
    for (i, one) in different.iter().enumerate() {
        assert_eq!(different.iter().filter(|other| *other == one).count(), 1, "number {i}");
    }
}

/// `Pod` derives refuse padding; a type that vouches for itself may have it, and the format shows it.
#[derive(Clone, Copy, Zeroable, Element)]
#[bytemuck(crate = "shmkit::bytemuck")]
#[repr(C, align(16))]
#[allow(dead_code, reason = "only the type is looked at")]
struct Padded {
    small: u8,
    large: u32,
    last: u16,
}

// SAFETY: its padding would be unsound to read as bytes; nobody makes a value of it, only the derive's constants are looked at.
unsafe impl Pod for Padded {}

#[test]
fn padding_is_in_the_format() {
    assert_eq!(Padded::FORMAT.as_str(), "T{B:small:3x<I:large:<H:last:6x}");
}

/// The size is a parameter.
#[derive(Clone, Copy, Element)]
#[repr(C)]
#[allow(dead_code, reason = "only the type is looked at")]
struct Samples<const N: usize> {
    values: [f32; N],
}

// SAFETY: an array of floats and nothing else.
unsafe impl<const N: usize> Zeroable for Samples<N> {}
// SAFETY: an array of floats and nothing else.
unsafe impl<const N: usize> Pod for Samples<N> {}

#[test]
fn a_parameter_makes_types_of_their_own() {
    assert_eq!(Samples::<4>::FORMAT.as_str(), "T{(4)<f:values:}");
    assert_ne!(Samples::<4>::HASH, Samples::<5>::HASH);
}

#[test]
fn an_element_of_another_structure_is_refused_with_both_shown() {
    let segment = shmkit::Segment::anonymous().unwrap();
    let _points = segment.mutex::<Point>("point").create().unwrap();
    assert!(segment.mutex::<Dot>("point").open().is_ok());
    let error = segment.mutex::<Renamed>("point").open().unwrap_err().to_string();
    assert!(error.contains("T{<d:x:<d:y:}") && error.contains("T{<d:x:<d:z:}"), "{error}");
}
