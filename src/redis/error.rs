//! Whether a failed command certainly took no effect or perhaps did: a wrong answer could pay an order twice.

use redis::{ErrorKind, RedisError};

use super::redirect;
use super::url::Topology;

/// Why a command failed, and whether it may have taken effect.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LinkError {
    /// No connection: nothing was sent.
    #[error("Redis cannot be reached, nothing was sent: {0}")]
    NotSent(String),
    /// The connection broke or the timeout passed: the command may have taken effect.
    #[error("Redis did not answer, the command may have taken effect: {0}")]
    Unanswered(String),
    /// Redis answered with an error: the command took no effect.
    #[error("Redis refused: {code} {text}")]
    Refused {
        /// `READONLY`, `OOM`, `LOADING`, `NOPERM`, …
        code: String,
        /// The rest of the error message.
        text: String,
    },
    /// Redis stopped a script with an error. Whatever the script had written before stays written.
    #[error("Redis stopped a script, which may have taken effect in part: {code} {text}")]
    Stopped {
        /// `NOPERM`, `WRONGTYPE`, `ERR`, …
        code: String,
        /// The rest of the error message.
        text: String,
    },
}

/// Error codes by which Redis refuses a script before it has written anything: before it runs, or at its first write.
const BEFORE_A_WRITE: [&str; 14] = [
    "NOSCRIPT",
    "LOADING",
    "MOVED",
    "ASK",
    "TRYAGAIN",
    "CLUSTERDOWN",
    "CROSSSLOT",
    "READONLY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "MASTERDOWN",
    "BUSY",
    "NOAUTH",
];

impl LinkError {
    /// Whether the command may have taken effect.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        matches!(self, Self::Unanswered(_) | Self::Stopped { .. })
    }

    /// Converts an error of a script: Redis does not roll back what a script has already written.
    pub(super) fn of_a_script(self) -> Self {
        match self {
            Self::Refused { code, text } if !BEFORE_A_WRITE.contains(&code.as_str()) => {
                Self::Stopped { code, text }
            }
            error
            @ (Self::NotSent(_) | Self::Unanswered(_) | Self::Refused { .. } | Self::Stopped { .. }) => error,
        }
    }

    /// Whether a demoted master refused the write: the link must look for the current master.
    pub(super) fn is_read_only(&self) -> bool {
        matches!(self, Self::Refused { code, .. } if code == "READONLY")
    }
}

/// Classifies an error of a command that was handed to a connection. In doubt the command may have taken effect.
pub(super) fn classify(error: &RedisError, topology: &Topology) -> LinkError {
    let is_refusal = match topology {
        Topology::Standalone | Topology::Sentinel { .. } => {
            matches!(error.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
        }
        Topology::Cluster => is_refusal_of_a_cluster(error),
    };
    if is_refusal {
        let code = error.code().unwrap_or("ERR").to_owned();
        let text = error.detail().map_or_else(|| error.to_string(), str::to_owned);
        LinkError::Refused { code, text }
    } else {
        LinkError::Unanswered(error.to_string())
    }
}

/// When the library's cluster client fails to refresh the slots, it returns that failure for other commands that still
/// wait, although those may have taken effect. So only an error that `CLUSTER SLOTS` itself never returns certainly
/// belongs to the command.
fn is_refusal_of_a_cluster(error: &RedisError) -> bool {
    const OF_WRITES: [&str; 7] = [
        "OOM",
        "MISCONF",
        "NOREPLICAS",
        "WRONGTYPE",
        "NOSCRIPT",
        "CROSSSLOT",
        "EXECABORT",
    ];
    redirect::was_turned_away(error) || error.code().is_some_and(|code| OF_WRITES.contains(&code))
}

#[cfg(test)]
mod tests {
    use redis::ServerErrorKind;

    use super::*;

    #[test]
    fn a_script_that_was_stopped_may_have_written() {
        let refused = |code: &str| LinkError::Refused {
            code: code.to_owned(),
            text: String::new(),
        };
        for code in ["NOPERM", "WRONGTYPE", "ERR"] {
            assert!(
                !refused(code).is_unsure() && refused(code).of_a_script().is_unsure(),
                "{code}"
            );
        }
        for code in BEFORE_A_WRITE {
            assert!(!refused(code).of_a_script().is_unsure(), "{code}");
        }
    }

    fn cluster_and_node(kind: ErrorKind) -> (bool, bool) {
        let error = RedisError::from((kind, "words"));
        let node = classify(&error, &Topology::Standalone);
        (classify(&error, &Topology::Cluster).is_unsure(), node.is_unsure())
    }

    #[test]
    fn what_is_not_surely_a_refusal_may_have_taken_effect() {
        for kind in [
            ErrorKind::Io,
            ErrorKind::Parse,
            ErrorKind::Client,
            ErrorKind::UnexpectedReturnType,
            ErrorKind::ClusterConnectionNotFound,
        ] {
            assert_eq!(cluster_and_node(kind), (true, true), "{kind:?}");
        }
        for kind in [
            ServerErrorKind::Moved,
            ServerErrorKind::Ask,
            ServerErrorKind::TryAgain,
            ServerErrorKind::ReadOnly,
            ServerErrorKind::ClusterDown,
            ServerErrorKind::NoScript,
            ServerErrorKind::CrossSlot,
            ServerErrorKind::ExecAbort,
        ] {
            assert_eq!(
                cluster_and_node(ErrorKind::Server(kind)),
                (false, false),
                "{kind:?}"
            );
        }
        // A node may answer these to `CLUSTER SLOTS`, and the cluster client then returns them for other commands.
        for kind in [
            ServerErrorKind::ResponseError,
            ServerErrorKind::BusyLoading,
            ServerErrorKind::MasterDown,
            ServerErrorKind::NoPerm,
        ] {
            assert_eq!(
                cluster_and_node(ErrorKind::Server(kind)),
                (true, false),
                "{kind:?}"
            );
        }
    }
}
