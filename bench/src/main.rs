//! Measures the sidecar beside a bare hyper pass-through and nginx with Lua, on loopback, in one run: `scripts/bench`.
//!
//! [`subject`] starts what is measured, each as a process of its own with one worker thread; [`load`] asks, [`upstream`]
//! answers, both in this process; [`meter`] reads what the subject's process used; [`report`] prints, ratios first.

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
    /// Every set-up side by side.
    Compare {
        #[command(flatten)]
        common: Common,
        /// Only set-ups whose name contains one of these.
        #[arg(long, value_delimiter = ',')]
        only: Vec<String>,
        /// Another build of the sidecar, measured beside it.
        #[arg(long)]
        other: Option<PathBuf>,
    },
    /// How cost grows with connections, known users and recorded payouts.
    Growth {
        #[command(flatten)]
        common: Common,
        /// The largest number of known users and of recorded payouts.
        #[arg(long, default_value_t = 1_000_000)]
        most: u64,
    },
    /// Many payouts in one process: is its memory flat?
    Soak {
        #[command(flatten)]
        common: Common,
        /// How many payouts.
        #[arg(long, default_value_t = 10_000_000)]
        payouts: u64,
    },
    /// How long from exec until it is ready, and what it holds then.
    Start {
        #[command(flatten)]
        common: Common,
    },
    /// The floor: hands each request on, and each answer back. Started by the others.
    #[command(hide = true)]
    Floor {
        listen: SocketAddr,
        upstream: SocketAddr,
    },
}

#[derive(clap::Args, Clone)]
struct Common {
    /// The sidecar's binary.
    #[arg(long)]
    sidecar: PathBuf,
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections at saturation.
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
