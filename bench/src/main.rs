//! Measures the sidecar beside a bare hyper pass-through and nginx with Lua, on loopback, in one run. Start it
//! with `scripts/bench`.
//!
//! [`subject`] starts the measured programs, each in its own process with one worker thread. [`load`] sends
//! requests and [`upstream`] answers them, both in this process. [`meter`] reads what the subject's process
//! used. [`report`] prints the results, ratios first.

mod floor;
mod growth;
mod load;
mod meter;
mod report;
mod soak;
mod store;
mod subject;
mod upstream;
mod wire;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Line {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Compares all set-ups in one run.
    Compare {
        #[command(flatten)]
        common: Common,
        /// Only set-ups whose name contains one of these texts.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Another build of the sidecar, to measure beside it.
        #[arg(long)]
        other: Option<PathBuf>,
    },
    /// Measures how cost grows with connections, known users and recorded payouts.
    Growth {
        #[command(flatten)]
        common: Common,
        /// The largest number of known users and of recorded payouts.
        #[arg(long, default_value_t = 1_000_000)]
        most: u64,
    },
    /// Makes many payouts in one process, and shows whether its memory stays flat.
    Soak {
        #[command(flatten)]
        common: Common,
        /// The number of payouts.
        #[arg(long, default_value_t = 10_000_000)]
        payouts: u64,
    },
    /// Measures the time from exec until the sidecar is ready, and its memory then.
    Start {
        #[command(flatten)]
        common: Common,
    },
    /// The floor: forwards each request and response. The other commands start it.
    #[command(hide = true)]
    Floor {
        listen: SocketAddr,
        upstream: SocketAddr,
    },
}

#[derive(clap::Args, Clone)]
struct Common {
    /// Path of the sidecar's binary.
    #[arg(long)]
    sidecar: PathBuf,
    /// Duration of each measurement, in seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Number of connections at saturation.
    #[arg(long, default_value_t = 64)]
    connections: usize,
}

impl Common {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }
}

fn main() -> anyhow::Result<()> {
    match Line::parse().what {
        What::Compare { common, only, other } => report::compare(&common, &only, other.as_deref()),
        What::Growth { common, most } => growth::growth(&common, most),
        What::Soak { common, payouts } => soak::soak(&common, payouts),
        What::Start { common } => soak::start(&common),
        What::Floor { listen, upstream } => floor::serve(listen, upstream),
    }
}
