//! `layouts.json`: the same for programs. The values of constants are there as text too, for readers whose
//! numbers are floating-point.

use super::text::{Shape, plain};
use shmkit_layouts::reflect::{CONSTANTS, STRUCTS, WORDS};
use shmkit_layouts::segment::{LAYOUT_MAJOR, LAYOUT_MINOR, MAGIC};

/// The whole document.
pub fn generate() -> String {
    let constants = CONSTANTS.iter().copied().flatten().map(|constant| {
        object([
            ("name", string(constant.name)),
            ("type", string(constant.ty)),
            ("value", constant.value.to_string()),
            ("hex", string(&format!("{:#x}", constant.value))),
            ("doc", string(&plain(constant.doc))),
        ])
    });
    let words = WORDS.iter().map(|word| {
        let fields = word.fields.iter().map(|field| {
            object([
                ("name", string(field.name)),
                ("shift", field.shift.to_string()),
                ("bits", field.bits.to_string()),
                ("doc", string(&plain(field.doc))),
            ])
        });
        object([
            ("name", string(word.name)),
            ("bits", word.bits.to_string()),
            ("doc", string(&plain(word.doc))),
            ("fields", array(3, fields)),
        ])
    });
    let structs = STRUCTS.iter().map(|layout| {
        let fields = layout.fields.iter().map(|field| {
            let shape = Shape::of(field.ty);
            object([
                ("name", string(field.name)),
                ("offset", field.offset.to_string()),
                ("size", field.size.to_string()),
                ("type", string(&format!("u{}", shape.bits))),
                ("count", shape.count.map_or_else(|| "null".to_owned(), |count| count.to_string())),
                ("atomic", shape.atomic.to_string()),
                ("doc", string(&plain(field.doc))),
            ])
        });
        object([
            ("name", string(layout.name)),
            ("size", layout.size.to_string()),
            ("align", layout.align.to_string()),
            ("doc", string(&plain(layout.doc))),
            ("fields", array(3, fields)),
        ])
    });
    let magic = MAGIC.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    format!(
        "{{\n \"generated_by\": \"cargo xtask layouts\",\n \"layout\": {{\"major\": {LAYOUT_MAJOR}, \"minor\": {LAYOUT_MINOR}}},\n \
         \"magic\": [{magic}],\n \"constants\": {},\n \"words\": {},\n \"structs\": {}\n}}\n",
        array(2, constants),
        array(2, words),
        array(2, structs),
    )
}

fn object<const N: usize>(members: [(&str, String); N]) -> String {
    let members: Vec<String> = members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
    format!("{{{}}}", members.join(", "))
}

/// An array with a line for each element.
fn array(indent: usize, elements: impl Iterator<Item = String>) -> String {
    let space = " ".repeat(indent);
    let elements: Vec<String> = elements.map(|element| format!("{space}{element}")).collect();
    format!("[\n{}\n{}]", elements.join(",\n"), " ".repeat(indent - 1))
}

fn string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            control if (control as u32) < 0x20 => quoted.push_str(&format!("\\u{:04x}", control as u32)),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    quoted
}
