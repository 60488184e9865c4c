//! Other languages read what is in a segment: a Python program that knows `shm-layouts/SPEC.md` and `layouts.json`, and nothing else.

mod common;

use shmkit::{Dict, Scalar, Segment};
use std::collections::BTreeMap;
use std::process::Command;

/// What the Python program says of each container of `segment`; `None` if there is no Python.
fn read_by_python(segment: &Segment) -> Option<BTreeMap<String, String>> {
    let name = segment.name().expect("a named segment");
    let root = env!("CARGO_MANIFEST_DIR");
    let program = format!("{root}/tests/python/read_containers.py");
    let layouts = format!("{root}/shm-layouts/layouts.json");
    let output = match Command::new("python3").args([&program, &layouts, name]).output() {
        Ok(output) => output,
        Err(error) => {
            common::skip("what Python reads", &format!("python3: {error}"));
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| line.split_once('\t').expect("name and elements"));
    Some(lines.map(|(name, elements)| (name.to_owned(), elements.to_owned())).collect())
}

#[test]
fn plain_keys_and_values_are_read_by_python() {
    let segment = common::named("languages");
    let plain = segment.dict::<Scalar, Scalar>("plain").create().unwrap();
    let items: [(Scalar, Scalar); 8] = [
        ("text".into(), "grün\0".into()),
        (7i64.into(), (-1i64).into()),
        (i64::MIN.into(), i64::MAX.into()),
        (2.5.into(), 0.1.into()),
        (true.into(), false.into()),
        (Scalar::None, Scalar::None),
        (vec![0u8, 255].into(), vec![1u8; 20].into()),
        ("a key that is longer than a word".into(), "x".repeat(5000).as_str().into()),
    ];
    plain.merge(items).unwrap();
    plain.insert(&"gone".into(), &1.into()).unwrap();
    plain.remove(&"gone".into()).unwrap();
    plain.insert(&7.into(), &(-2).into()).unwrap();

    // With pages, deleted entries, and a table that is being replaced.
    let large = segment.dict::<u32, u32>("large").create().unwrap();
    large.merge((0..5000).map(|n| (n, n * 3))).unwrap();
    (0..5000).step_by(7).for_each(|n| assert!(large.remove(&n).unwrap()));
    let _empty: Dict<u8, u8> = segment.dict("empty").create().unwrap();

    let space = segment.namespace("space").create().unwrap();
    space.set("threads", &8u8).unwrap();
    space.set("title", "a run").unwrap();

    // In their slots and in nodes, over several chunks.
    let mixed = segment.list::<Scalar>("mixed").create().unwrap();
    let values = [1.into(), (-1).into(), (1i64 << 60).into(), 0.5.into(), 0.1.into(), "short".into()];
    mixed
        .extend(values.into_iter().chain(["longer than that".into(), Scalar::None, true.into(), vec![7u8].into()]))
        .unwrap();
    let numbers = segment.list::<i64>("numbers").create().unwrap();
    numbers.extend(-700..700).unwrap();
    numbers.insert(3, &77).unwrap();

    let Some(found) = read_by_python(&segment) else { return };
    let long = "x".repeat(5000);
    let expected = format!(
        "[[\"text\", \"gr\\u00fcn\\u0000\"], [7, -2], [-9223372036854775808, 9223372036854775807], [2.5, 0.1], \
         [true, false], [null, null], [{{\"bytes\": \"00ff\"}}, {{\"bytes\": \"{}\"}}], \
         [\"a key that is longer than a word\", \"{long}\"]]",
        "01".repeat(20)
    );
    assert_eq!(found["plain"], expected);
    let pairs: Vec<String> = (0..5000).filter(|n| n % 7 != 0).map(|n| format!("[{n}, {}]", n * 3)).collect();
    assert!(found["large"] == format!("[{}]", pairs.join(", ")), "{:.300}", found["large"]);
    assert_eq!(found["empty"], "[]");
    assert_eq!(found["space"], "[[\"threads\", 8], [\"title\", \"a run\"]]");
    assert_eq!(
        found["mixed"],
        "[1, -1, 1152921504606846976, 0.5, 0.1, \"short\", \"longer than that\", null, true, {\"bytes\": \"07\"}]"
    );
    let mut model: Vec<String> = (-700..700).map(|n| n.to_string()).collect();
    model.insert(3, "77".to_owned());
    assert_eq!(found["numbers"], format!("[{}]", model.join(", ")));
}
