//! A cgroup with its own memory limit. It is a child of the test's cgroup, so creating it needs root or a
//! delegated cgroup.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A cgroup. Dropping it removes it, once the processes in it have ended (it waits up to 2 s).
pub struct Cgroup {
    path: PathBuf,
}

impl Cgroup {
    /// Creates a cgroup with a limit of `limit` MiB. Returns `None` if the system does not allow it.
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

    /// The file into which a process writes its id to enter the cgroup.
    pub fn procs(&self) -> PathBuf {
        self.path.join("cgroup.procs")
    }

    /// How many processes in the cgroup the kernel has killed for lack of memory.
    pub fn killed(&self) -> u64 {
        let read = |file: &str| std::fs::read_to_string(self.path.join(file)).ok();
        let text = read("memory.events")
            .or_else(|| read("memory.oom_control"))
            .unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// The peak memory use in MiB, including memory that the kernel can reclaim (file pages).
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

/// The folder of this process's own memory cgroup.
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
