//! The tables of SPEC.md, between `<!-- generated: WHAT -->` and `<!-- end -->`.
//!
//! `WHAT` is `struct NAME…`, `word NAME…`, or `constants PREFIX…`. Every struct, word and constant must stand in one of them.

use super::text::{Shape, plain};
use shmkit_layouts::reflect::{CONSTANTS, Constant, STRUCTS, Struct, WORDS, Word};
use std::collections::BTreeSet;

const START: &str = "<!-- generated: ";
const START_END: &str = " -->";
const END: &str = "<!-- end -->";

/// `document` with its tables filled in.
pub fn fill(document: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut shown = BTreeSet::new();
    let mut rest = document;
    while let Some((before, marked)) = rest.split_once(START) {
        let (what, after) = marked.split_once(START_END).ok_or("a marker does not end")?;
        let (_, after) = after.split_once(END).ok_or_else(|| format!("{END} is missing after {what:?}"))?;
        out.push_str(&format!("{before}{START}{what}{START_END}\n\n{}\n{END}", tables(what, &mut shown)?));
        rest = after;
    }
    out.push_str(rest);
    let structs = STRUCTS.iter().map(|layout| layout.name);
    let words = WORDS.iter().map(|word| word.name);
    let constants = CONSTANTS.iter().copied().flatten().map(|constant| constant.name);
    let missing: Vec<&str> = structs.chain(words).chain(constants).filter(|name| !shown.contains(name)).collect();
    if !missing.is_empty() {
        return Err(format!("no table shows {}", missing.join(", ")));
    }
    Ok(out)
}

fn tables(what: &str, shown: &mut BTreeSet<&'static str>) -> Result<String, String> {
    let mut names = what.split_whitespace();
    let kind = names.next().unwrap_or_default();
    if kind == "constants" {
        let prefixes: Vec<&str> = names.collect();
        let all = CONSTANTS.iter().copied().flatten();
        let chosen: Vec<&Constant> =
            all.filter(|constant| prefixes.iter().any(|prefix| constant.name.starts_with(prefix))).collect();
        shown.extend(chosen.iter().map(|constant| constant.name));
        return if chosen.is_empty() { Err(format!("no constant for {what:?}")) } else { Ok(constants(&chosen)) };
    }
    let mut all = Vec::new();
    for name in names {
        match kind {
            "struct" => {
                let layout = STRUCTS.iter().find(|layout| layout.name == name).ok_or(format!("no struct {name}"))?;
                shown.insert(layout.name);
                all.push(fields(layout));
            }
            "word" => {
                let word = WORDS.iter().find(|word| word.name == name).ok_or(format!("no word {name}"))?;
                shown.insert(word.name);
                all.push(bits(word));
            }
            _ => return Err(format!("{kind:?} is no kind of table")),
        }
    }
    Ok(all.join("\n"))
}

fn fields(layout: &Struct) -> String {
    let Struct { name, size, align, .. } = layout;
    let mut table = format!("**`{name}`**: {size} bytes, aligned {align}. {}\n\n", plain(layout.doc));
    table.push_str("| offset | bytes | field | type | |\n|---:|---:|---|---|---|\n");
    for field in layout.fields {
        let shape = Shape::of(field.ty);
        let atomic = if shape.atomic { "atomic " } else { "" };
        let count = shape.count.map_or_else(String::new, |count| format!(" × {count}"));
        let (offset, size, name, doc) = (field.offset, field.size, field.name, cell(field.doc));
        table.push_str(&format!("| {offset} | {size} | `{name}` | {atomic}u{}{count} | {doc} |\n", shape.bits));
    }
    table
}

fn bits(word: &Word) -> String {
    let mut table = format!("**`{}`**: u{}. {}\n\n", word.name, word.bits, plain(word.doc));
    table.push_str("| bits | width | field | |\n|---:|---:|---|---|\n");
    for field in word.fields {
        let (low, high) = (field.shift, field.shift + field.bits - 1);
        let range = if low == high { low.to_string() } else { format!("{low}–{high}") };
        table.push_str(&format!("| {range} | {} | `{}` | {} |\n", field.bits, field.name, cell(field.doc)));
    }
    table
}

fn constants(chosen: &[&Constant]) -> String {
    let mut table = String::from("| constant | value | |\n|---|---:|---|\n");
    for constant in chosen {
        let value = match constant.value {
            value if value < 1000 => value.to_string(),
            value if value < 1 << 32 => format!("{value} ({value:#x})"),
            value => format!("{value:#x}"),
        };
        table.push_str(&format!("| `{}` | {value} | {} |\n", constant.name, cell(constant.doc)));
    }
    table
}

/// Documentation as a cell of a table.
fn cell(doc: &str) -> String {
    plain(doc).replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_between_the_markers_is_replaced() {
        let mut shown = BTreeSet::new();
        let table = tables("word Token", &mut shown).unwrap();
        assert!(table.contains("| 12–29 | 18 | `generation` |"), "{table}");
        assert_eq!(shown.into_iter().collect::<Vec<_>>(), ["Token"]);
    }

    #[test]
    fn a_document_that_leaves_something_out_is_refused() {
        let missing = fill("Nothing.").unwrap_err();
        assert!(missing.contains("SegmentHeader") && missing.contains("KIND_LOCK"), "{missing}");
        assert!(fill("<!-- generated: struct Nothing -->\n<!-- end -->").unwrap_err().contains("no struct Nothing"));
    }
}
