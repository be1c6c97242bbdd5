//! A cgroup with a memory limit of its own, where one can be made: below the test's own, which needs root, or a delegated one.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cgroup. It is removed when dropped, after what ran in it.
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// One with a limit of so many MiB. `None` where none can be made.
    pub fn of_mib(limit: u64) -> Option<Self> {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let own = own()?;
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = own.join(format!("payout-sidecar-{}-{number}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let made = Self { path };
        let bytes = (limit * 1024 * 1024).to_string();
        let limited = ["memory.max", "memory.limit_in_bytes"].iter().any(|file| {
            made.path.join(file).exists() && std::fs::write(made.path.join(file), &bytes).is_ok()
        });
        if !limited {
            eprintln!("no cgroup with a memory limit can be made in {}", own.display());
            return None;
        }
        let _ = std::fs::write(made.path.join("memory.swap.max"), "0");
        Some(made)
    }

    /// The file into which a process writes its number to come in.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// How often the kernel has killed a process in it for want of memory.
    pub fn killed(&self) -> u64 {
        let read = |file: &str| std::fs::read_to_string(self.path.join(file)).ok();
        let text = read("memory.events")
            .or_else(|| read("memory.oom_control"))
            .unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// The most that it has used so far, in MiB, what the kernel may take back (files) included.
    pub fn peak_mib(&self) -> u64 {
        let read = |file: &str| std::fs::read_to_string(self.path.join(file)).ok();
        let text = read("memory.peak").or_else(|| read("memory.max_usage_in_bytes"));
        text.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0) / (1024 * 1024)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        for _ in 0..100 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The folder of this process's own cgroup that counts memory.
fn own() -> Option<PathBuf> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let folder = |mount: &str, line: &str| Some(Path::new(mount).join(path(line)?.trim_start_matches('/')));
    if let Some(line) = text.lines().find(|line| line.contains(":memory:")) {
        return folder("/sys/fs/cgroup/memory", line);
    }
    folder(
        "/sys/fs/cgroup",
        text.lines().find(|line| line.starts_with("0::"))?,
    )
}
