//! The command line: one file per command. See docs/operate.md.
//!
//! Exit codes: 0, 1 (failed), 2 (wrong usage or configuration).

mod admin_port;
mod check;
mod demo;
mod drain;
mod health;
mod ledger;
mod man;
mod openid;
mod payout;
mod stub;

use std::num::NonZero;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser, Subcommand};

use crate::private;
use crate::telemetry::log::out;
use payout_domain::terminal;

/// A reverse-proxy sidecar that pays WeChat red packets (红包) and transfers (付款到零钱) once per order number.
#[derive(Parser)]
#[command(name = "payout-sidecar", version, about, max_term_width = 100)]
struct Line {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration file.
    #[arg(long, global = true, default_value = "config.toml", value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Serve (the default).
    Run,
    /// Check the configuration, and the secrets and files that it names.
    Check {
        /// Also check that the stores answer and the ledger is usable.
        #[arg(long)]
        connect: bool,
    },
    /// Start a fake WeChat Pay and a sidecar on embedded stores, make some payouts, and show the answers.
    Demo {
        /// Exit when done, with 1 if any answer was wrong.
        #[arg(long)]
        once: bool,
    },
    /// Serve a fake WeChat Pay and customer's handler, for tests and staging.
    Stub(stub::StubArguments),
    /// Ask the admin port whether the sidecar is ready, for probes in an image without a shell.
    Healthcheck {
        /// Ask /livez instead of /readyz.
        #[arg(long)]
        live: bool,
    },
    /// Shut a running sidecar down gracefully and wait for its end. Not for the preStop hook of a native sidecar, which
    /// Kubernetes runs while calls still come.
    Drain,
    /// Create the ledger, check it for lost data, or accept such a loss.
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// Import, look up, change or export the mapping of user ids to openids.
    #[command(subcommand)]
    Openid(openid::OpenidCommand),
    /// Look payouts up in a running sidecar, settle an unknown one by hand, or cancel one.
    #[command(subcommand)]
    Payout(payout::PayoutCommand),
    /// Print the JSON Schema of config.toml.
    Schema,
    /// Print a completion script.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the manual page.
    Man {
        /// Write it, and a page for each command, to this directory.
        #[arg(long, value_name = "DIR", value_hint = clap::ValueHint::DirPath)]
        dir: Option<PathBuf>,
    },
}

/// Runs the program. On wrong usage clap exits with 2 itself.
#[must_use]
#[expect(clippy::print_stderr, reason = "this is where a command's failure is told")]
pub fn main() -> ExitCode {
    let line = Line::parse();
    let ending = start(line);
    out::flush();
    let Err(error) = ending else {
        return ExitCode::SUCCESS;
    };
    eprintln!("payout-sidecar: {}", terminal::lines(&format!("{error:#}")));
    ExitCode::from(if crate::app::is_misconfigured(&error) {
        2
    } else {
        1
    })
}

/// tokio's own environment variable for the number of threads that serve. Without it there is one thread for each
/// processor that this process may use, and a CPU limit of Kubernetes reduces that number.
const WORKER_THREADS: &str = "TOKIO_WORKER_THREADS";

/// With one thread, the current-thread runtime saves handing tasks from one thread to another.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    let told = std::env::var(WORKER_THREADS)
        .ok()
        .and_then(|text| text.parse().ok());
    let threads = told.or_else(|| std::thread::available_parallelism().ok().map(NonZero::get));
    let mut builder = if threads == Some(1) {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    builder.on_thread_park(out::before_rest).enable_all().build()
}

#[expect(clippy::print_stdout, reason = "the schema goes to the terminal")]
fn start(line: Line) -> anyhow::Result<()> {
    // Before the first secret is read.
    private::forbid_dumps().context("this process's memory cannot be kept to itself")?;
    let runtime = runtime().context("the runtime could not be started")?;
    runtime.block_on(async {
        match line.command.unwrap_or(Command::Run) {
            Command::Run => crate::app::run::run(&line.config).await,
            Command::Check { connect } => check::check(&line.config, connect).await,
            Command::Demo { once } => demo::demo(once).await,
            Command::Stub(arguments) => stub::stub(arguments).await,
            Command::Healthcheck { live } => health::check(&line.config, live).await,
            Command::Drain => drain::drain(&line.config).await,
            Command::Ledger(command) => ledger::ledger(&line.config, command).await,
            Command::Openid(command) => openid::openid(&line.config, command).await,
            Command::Payout(command) => payout::payout(&line.config, command).await,
            Command::Schema => {
                println!("{:#}", crate::config::schema::schema());
                Ok(())
            }
            Command::Man { dir } => man::man(Line::command(), dir.as_deref()),
            Command::Completions { shell } => {
                clap_complete::generate(
                    shell,
                    &mut Line::command(),
                    "payout-sidecar",
                    &mut std::io::stdout(),
                );
                Ok(())
            }
        }
    })
}
