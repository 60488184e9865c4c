//! Names, types and documentation of the reflected layouts, in the forms that the generators share.

/// A reflected Rust type taken apart: `[AtomicU32; 13]` is 13 atomic integers of 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Bits of one integer.
    pub bits: u32,
    /// Peers change it while others look at it.
    pub atomic: bool,
    /// How many there are; `None` for one that is no array.
    pub count: Option<usize>,
}

impl Shape {
    /// Takes the type `ty` apart.
    ///
    /// # Panics
    /// If it is none that may lie in shared memory.
    pub fn of(ty: &str) -> Shape {
        if let Some(array) = ty.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            let (element, count) = array.split_once(';').expect("an array type");
            let count = count.trim().parse().expect("a literal length");
            return Shape { count: Some(count), ..Shape::of(element.trim()) };
        }
        let (atomic, bits) = match ty.strip_prefix("AtomicU") {
            Some(bits) => (true, bits),
            None => (false, ty.strip_prefix('u').unwrap_or_else(|| panic!("{ty} cannot lie in shared memory"))),
        };
        match bits.parse() {
            Ok(bits @ (8 | 16 | 32 | 64)) => Shape { bits, atomic, count: None },
            _ => panic!("{ty} cannot lie in shared memory"),
        }
    }
}

/// `SegmentHeader` as `segment_header`.
pub fn snake(name: &str) -> String {
    let mut snake = String::new();
    let mut after_capital = true;
    for letter in name.chars() {
        if letter.is_uppercase() && !after_capital {
            snake.push('_');
        }
        after_capital = letter.is_uppercase();
        snake.extend(letter.to_lowercase());
    }
    snake
}

/// Documentation on one line, with Rust's links to `path::Name` as plain `Name`.
pub fn plain(doc: &str) -> String {
    let mut plain = String::new();
    let mut rest = doc;
    while let Some((before, link)) = rest.split_once("[`") {
        let (path, after) = link.split_once("`]").expect("a link that ends");
        plain.push_str(before);
        plain.push_str(&format!("`{}`", path.rsplit("::").next().unwrap_or(path)));
        rest = after;
    }
    plain.push_str(rest);
    plain.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_taken_apart() {
        assert_eq!(Shape::of("u8"), Shape { bits: 8, atomic: false, count: None });
        assert_eq!(Shape::of("[AtomicU64; 31]"), Shape { bits: 64, atomic: true, count: Some(31) });
    }

    #[test]
    #[should_panic(expected = "cannot lie in shared memory")]
    fn a_type_of_no_fixed_width_is_refused() {
        Shape::of("usize");
    }

    #[test]
    fn names_and_links_become_plain() {
        assert_eq!(snake("RLockBody"), "rlock_body");
        assert_eq!(snake("SegmentHeader"), "segment_header");
        assert_eq!(
            plain(" The body's\n extent: [`crate::words::ExtentRef`] or 0.\n"),
            "The body's extent: `ExtentRef` or 0."
        );
    }
}
