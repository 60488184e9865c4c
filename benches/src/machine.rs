//! What the numbers were made on.

use std::fmt;
use std::fs::read_to_string;

/// The machine, and the state it is in.
pub struct Machine {
    /// Pairs of what and how much.
    pub facts: Vec<(&'static str, String)>,
}

fn first_line(path: &str) -> Option<String> {
    Some(read_to_string(path).ok()?.lines().next()?.trim().to_owned())
}

/// What stands behind `key` and a colon in a file of such lines.
fn field(path: &str, key: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.split(':').next().is_some_and(|found| found.trim() == key))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

impl Machine {
    /// This one, now.
    pub fn look() -> Machine {
        let unknown = || "unknown".to_owned();
        let cpus = crate::stage::cpus();
        let governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        let virtual_machine =
            field("/proc/cpuinfo", "flags").map(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
        let facts = vec![
            ("CPU", field("/proc/cpuinfo", "model name").unwrap_or_else(unknown)),
            ("CPUs used", cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")),
            (
                "threads of one core",
                first_line("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").unwrap_or_else(unknown),
            ),
            ("frequency governor", governor.unwrap_or_else(|| "not visible".to_owned())),
            ("virtual machine", virtual_machine.map_or_else(unknown, |yes| if yes { "yes" } else { "no" }.to_owned())),
            ("memory", field("/proc/meminfo", "MemTotal").unwrap_or_else(unknown)),
            ("kernel", first_line("/proc/sys/kernel/osrelease").unwrap_or_else(unknown)),
            (
                "huge pages for shared memory",
                first_line("/sys/kernel/mm/transparent_hugepage/shmem_enabled").unwrap_or_else(unknown),
            ),
            ("load before", first_line("/proc/loadavg").unwrap_or_else(unknown)),
            ("architecture", std::env::consts::ARCH.to_owned()),
            ("shmkit", env!("CARGO_PKG_VERSION").to_owned()),
        ];
        Machine { facts }
    }

    /// With a fact more.
    #[must_use]
    pub fn with(mut self, what: &'static str, value: String) -> Machine {
        self.facts.push((what, value));
        self
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (what, value) in &self.facts {
            writeln!(f, "{what:>28}  {value}")?;
        }
        let load: f64 = self
            .facts
            .iter()
            .find(|(what, _)| *what == "load before")
            .map_or(0.0, |(_, load)| load.split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0));
        if load > 0.5 {
            writeln!(f, "\nThe machine is busy: these figures will be worth little.")?;
        }
        Ok(())
    }
}
