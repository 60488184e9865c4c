//! What each command does.

use crate::print::{bytes, print_json, print_table};
use serde::Serialize;
use shmkit::segment::{SegmentInfo, gc as collect, list};
use shmkit::{LifePolicy, Result, Segment, SegmentError};
use std::process::ExitCode;
use std::time::UNIX_EPOCH;

#[derive(Serialize)]
struct SegmentRow {
    name: String,
    /// Bytes of memory.
    memory: u64,
    /// Bytes of address space.
    reserved: u64,
    participants: Vec<u32>,
    objects: usize,
    policy: &'static str,
    /// Seconds since 1970.
    created: u64,
}

#[derive(Serialize)]
struct ObjectRow {
    name: Option<String>,
    kind: &'static str,
    size: u64,
    holders: Vec<u32>,
}

#[derive(Serialize)]
struct Detail {
    #[serde(flatten)]
    segment: SegmentRow,
    contents: Vec<ObjectRow>,
}

fn row(info: &SegmentInfo) -> SegmentRow {
    SegmentRow {
        name: info.name.clone(),
        memory: info.committed,
        reserved: info.size_reserved,
        participants: info.participants.clone(),
        objects: info.objects.len(),
        policy: match info.policy {
            LifePolicy::OnLastDetach => "on last detach",
            LifePolicy::OnOwnerExit => "on owner exit",
            _ => "manual",
        },
        created: info.created.duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs()),
    }
}

fn pids(pids: &[u32]) -> String {
    pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ")
}

pub fn ls(json: bool) -> Result<ExitCode> {
    let rows: Vec<_> = list()?.iter().map(row).collect();
    if json {
        print_json(&rows);
        return Ok(ExitCode::SUCCESS);
    }
    print_table(
        &["NAME", "MEMORY", "PROCESSES", "OBJECTS", "LIFE"],
        rows.iter().map(|row| {
            let processes = if row.participants.is_empty() { "-".to_owned() } else { pids(&row.participants) };
            vec![row.name.clone(), bytes(row.memory), processes, row.objects.to_string(), row.policy.to_owned()]
        }),
    );
    Ok(ExitCode::SUCCESS)
}

pub fn show(name: &str, json: bool) -> Result<ExitCode> {
    let Some(info) = list()?.into_iter().find(|info| info.name == name) else {
        return Err(SegmentError::NotFound { name: name.to_owned() }.into());
    };
    let contents: Vec<_> = info
        .objects
        .iter()
        .map(|object| ObjectRow {
            name: object.name.clone(),
            kind: object.kind,
            size: object.size,
            holders: object.holders.clone(),
        })
        .collect();
    if json {
        print_json(&Detail { segment: row(&info), contents });
        return Ok(ExitCode::SUCCESS);
    }
    let row = row(&info);
    println!("{}: {} of {} in memory, {}", row.name, bytes(row.memory), bytes(row.reserved), row.policy);
    println!("processes: {}", if row.participants.is_empty() { "none".to_owned() } else { pids(&row.participants) });
    print_table(
        &["OBJECT", "KIND", "SIZE", "HELD BY"],
        contents.iter().map(|object| {
            let name = object.name.clone().unwrap_or_else(|| "-".to_owned());
            vec![name, object.kind.to_owned(), bytes(object.size), pids(&object.holders)]
        }),
    );
    Ok(ExitCode::SUCCESS)
}

pub fn rm(names: &[String], force: bool) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for name in names {
        if !Segment::unlink(name)? && !force {
            eprintln!("shmkit: {}", SegmentError::NotFound { name: name.clone() });
            code = ExitCode::from(1);
        }
    }
    Ok(code)
}

pub fn gc(json: bool) -> Result<ExitCode> {
    let report = collect()?;
    if json {
        #[derive(Serialize)]
        struct Report {
            removed: Vec<String>,
            kept: Vec<String>,
        }
        print_json(&Report { removed: report.removed, kept: report.kept });
    } else {
        for name in &report.removed {
            println!("removed {name}");
        }
        println!("{} removed, {} kept", report.removed.len(), report.kept.len());
    }
    Ok(ExitCode::SUCCESS)
}

pub fn verify(name: &str) -> Result<ExitCode> {
    let segment = Segment::open(name)?;
    let recovered = segment.recover();
    segment.verify()?;
    let (used, backed) = segment.memory()?;
    println!("{name} is sound: {} of {} of its heap in use, {recovered} dead recovered", bytes(used), bytes(backed));
    Ok(ExitCode::SUCCESS)
}
