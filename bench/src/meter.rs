//! Reads from /proc what a process has used. Linux counts CPU time there in hundredths of a second.

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// A child process. Dropping it kills it.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        Ok(Self { child })
    }

    /// User and system time of all threads.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let after_name = text.rsplit(')').next().unwrap_or_default();
        let ticks = |at: usize| after_name.split_whitespace().nth(at)?.parse::<u64>().ok();
        let (user, system) = ticks(11)
            .zip(ticks(12))
            .context("/proc/PID/stat has another form")?;
        Ok(Duration::from_millis(10 * (user + system)))
    }

    /// Resident memory, and the anonymous part of it, in bytes.
    pub fn memory(&self) -> anyhow::Result<(u64, u64)> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let of = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name))?;
            let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
            Some(kib * 1024)
        };
        of("VmRSS:")
            .zip(of("RssAnon:"))
            .context("/proc/PID/status has another form")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Waits for a condition, at most 30 s.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    while !holds() {
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(30),
            "waited too long until {what}"
        );
        pause(Duration::from_millis(2));
    }
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "no runtime runs in this thread")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}

pub fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

pub fn listens(port: u16) -> bool {
    std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
}
