//! What the process may use: the memory limit of its cgroup, and how many files it may open. Reads files of `/proc`
//! and `/sys/fs/cgroup` once per call, and keeps nothing.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::server::budget::{Means, Source};

/// Where the hierarchies of cgroups are mounted: version 2 alone, version 2 beside version 1, version 1.
const VERSION_2: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];
const VERSION_1: &str = "/sys/fs/cgroup/memory";
/// A limit of this size or more means none: version 1 writes "no limit" as the largest multiple of a page.
const NO_LIMIT: u64 = 1 << 60;
/// Without a limit: half of the machine's memory, at most this many bytes.
const UNLIMITED: u64 = 2 * 1024 * 1024 * 1024;

/// The memory and the descriptors that the process may use. `configured` replaces the cgroup's memory limit. The
/// descriptors are those of the limit in force, so call [`raise_descriptors`] first.
#[must_use]
pub(crate) fn means(configured: Option<u64>) -> Means {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let (memory, source) = match (configured, cgroup_limit(&read)) {
        (Some(limit), _) => (limit, Source::Configured),
        (None, Some(limit)) => (limit, Source::Cgroup),
        (None, None) => {
            let half = read("/proc/meminfo").and_then(|text| half_of_machine(&text));
            (
                std::cmp::min(half.unwrap_or(UNLIMITED), UNLIMITED),
                Source::Machine,
            )
        }
    };
    Means {
        memory,
        source,
        descriptors: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

/// Raises the soft limit of open files to the hard one. Logs both if that fails.
pub(crate) fn raise_descriptors() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => tracing::debug!(?current, ?maximum, "the limit of open files was raised"),
        Err(error) => {
            tracing::warn!(%error, ?current, ?maximum, "the limit of open files could not be raised")
        }
    }
}

/// The smallest limit from the process's own cgroup up to the root, in bytes. `read` gives a file's text.
fn cgroup_limit(read: &dyn Fn(&str) -> Option<String>) -> Option<u64> {
    let own = read("/proc/self/cgroup")?;
    let mut limits = Vec::new();
    for line in own.lines() {
        // `0::/path` in version 2; `4:memory:/path` in version 1, perhaps with several controllers.
        let mut parts = line.splitn(3, ':');
        let (Some(number), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next()) else {
            continue;
        };
        if number == "0" && controllers.is_empty() {
            for mount in VERSION_2 {
                limits.extend(
                    upwards(path).filter_map(|path| limit(&read(&format!("{mount}{path}/memory.max"))?)),
                );
            }
        } else if controllers.split(',').any(|controller| controller == "memory") {
            let file = "memory.limit_in_bytes";
            limits
                .extend(upwards(path).filter_map(|path| limit(&read(&format!("{VERSION_1}{path}/{file}"))?)));
        }
    }
    limits.into_iter().min()
}

/// A cgroup's path and those above it, without a slash at the end. In a container the file may name the host's path,
/// of which the container sees only the root.
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path.trim_end_matches('/')), |path| {
        path.rsplit_once('/').map(|(above, _)| above)
    })
}

/// The limit in a file's text; `None`: no limit.
fn limit(text: &str) -> Option<u64> {
    text.trim().parse().ok().filter(|limit| *limit < NO_LIMIT)
}

/// Half of `MemTotal`, in bytes.
fn half_of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib.saturating_mul(512))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit_of(files: &[(&str, &str)]) -> Option<u64> {
        cgroup_limit(&|asked| {
            let found = files.iter().find(|(path, _)| *path == asked);
            found.map(|(_, text)| (*text).to_owned())
        })
    }

    #[test]
    fn version_2_is_read_up_to_the_root() {
        let own = ("/proc/self/cgroup", "0::/kubepods/pod1/c1\n");
        let file = |path: &'static str, text: &'static str| (path, text);
        let (c1, pod1) = (
            "/sys/fs/cgroup/kubepods/pod1/c1/memory.max",
            "/sys/fs/cgroup/kubepods/pod1/memory.max",
        );
        assert_eq!(limit_of(&[own, file(c1, "67108864\n")]), Some(67_108_864));
        assert_eq!(limit_of(&[own, file(c1, "max\n")]), None);
        assert_eq!(
            limit_of(&[own, file(c1, "67108864\n"), file(pod1, "33554432\n")]),
            Some(33_554_432),
            "the pod's is smaller"
        );
        assert_eq!(limit_of(&[own, file(c1, "max\n"), file(pod1, "5\n")]), Some(5));
        // With a cgroup namespace of its own, a container sees itself as the root.
        let root = ("/proc/self/cgroup", "0::/\n");
        assert_eq!(
            limit_of(&[root, file("/sys/fs/cgroup/memory.max", "67108864\n")]),
            Some(67_108_864)
        );
    }

    #[test]
    fn version_1_is_read_up_to_the_root() {
        let own = (
            "/proc/self/cgroup",
            "9:name=systemd:/x\n4:cpu,memory:/docker/abc\n0::/\n",
        );
        let none = "9223372036854771712\n";
        let inner = "/sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes";
        let root = "/sys/fs/cgroup/memory/memory.limit_in_bytes";
        assert_eq!(
            limit_of(&[own, (inner, "1000000\n"), (root, none)]),
            Some(1_000_000)
        );
        assert_eq!(limit_of(&[own, (inner, none), (root, none)]), None);
        assert_eq!(
            limit_of(&[own, (root, "2000000\n")]),
            Some(2_000_000),
            "the host's path is not to be seen in the container"
        );
    }

    #[test]
    fn without_a_cgroup_there_is_no_limit() {
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&[("/proc/self/cgroup", "")]), None);
        assert_eq!(limit_of(&[("/proc/self/cgroup", "nonsense\n0::/\n")]), None);
    }

    #[test]
    fn the_machines_memory_is_halved() {
        let text = "MemTotal:       24731552 kB\nMemFree:        1 kB\n";
        assert_eq!(half_of_machine(text), Some(24_731_552 * 512));
        assert_eq!(half_of_machine("MemFree: 1 kB\n"), None);
    }

    #[test]
    fn what_is_configured_counts() {
        let means = means(Some(64 * 1024 * 1024));
        assert_eq!(
            (means.memory, means.source),
            (64 * 1024 * 1024, Source::Configured)
        );
        assert!(means.descriptors > 0);
    }
}
