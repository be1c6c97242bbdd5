//! A Redis server for each subject, in memory only: the benchmark does not measure its disk.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::meter::{Process, free_port, listens, until};

pub struct Redis {
    pub port: u16,
    pub process: Process,
}

impl Redis {
    pub fn start(dir: &Path) -> anyhow::Result<Self> {
        let port = free_port()?;
        let process = Process::start(
            Command::new("redis-server")
                .args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    "127.0.0.1",
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ])
                .current_dir(dir)
                .stdout(Stdio::null()),
        )?;
        until("Redis listens", || listens(port))?;
        Ok(Self { port, process })
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the bench fills its own store, and nothing of money is in it"
    )]
    pub fn connect(&self) -> anyhow::Result<redis::Connection> {
        Ok(redis::Client::open(self.url())?.get_connection()?)
    }

    /// Stores the openids of users `from..to`.
    pub fn know(&self, from: u64, to: u64) -> anyhow::Result<()> {
        let mut connection = self.connect()?;
        let mut at = from;
        while at < to {
            let next = std::cmp::min(at + 10_000, to);
            let mut pipe = redis::pipe();
            for user in at..next {
                pipe.set(format!("openid:wx8888888888888888:u{user}"), openid(user))
                    .ignore();
            }
            pipe.query::<()>(&mut connection)?;
            at = next;
        }
        Ok(())
    }
}

pub fn openid(user: u64) -> String {
    format!("oBENCH{user:022}")
}
