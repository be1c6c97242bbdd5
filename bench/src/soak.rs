//! `soak`: does memory stay flat over very many payouts in one process? `start`: how soon is the sidecar ready,
//! and how much memory does it use then?

use std::time::Duration;

use crate::Common;
use crate::load::{Encoding, Load, PAYOUT, Rate, Until};
use crate::meter::pause;
use crate::store::Redis;
use crate::subject::{Kind, Store, Subject, To};
use crate::upstream::Upstream;

/// The number of parts of the run. After each, the soak reads the memory.
const PARTS: u64 = 20;
const USERS: u64 = 10_000;

pub fn soak(common: &Common, payouts: u64) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    let kind = Kind::Sidecar {
        to: To::Handler,
        store: Store::Redis,
    };
    let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), USERS)?;
    let load = Load {
        address: subject.address,
        connections: common.connections,
        encoding: Encoding::Json,
        path: PAYOUT,
        users: USERS,
    };
    println!("| payouts | MiB resident | MiB of it anonymous |");
    println!("|---|---|---|");
    let look = |paid: u64| -> anyhow::Result<()> {
        if let Some(process) = &subject.process {
            let (resident, anonymous) = process.memory()?;
            let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
            println!("| {paid} | {:.1} | {:.1} |", mib(resident), mib(anonymous));
        }
        Ok(())
    };
    look(0)?;
    for part in 1..=PARTS {
        load.run(Rate::Saturation, Until::Count(payouts / PARTS))?
            .whole("soaking")?;
        look(part * payouts / PARTS)?;
        // Empty the store and the log, so that the run tests the sidecar's memory and not the machine's.
        if let Some(redis) = &subject.redis {
            forget(redis)?;
        }
        std::fs::File::options()
            .write(true)
            .truncate(true)
            .open(subject.dir.path().join("log"))?;
    }
    Ok(())
}

/// Removes the orders of the merchant, but not the ledger's mark and the openids. It works in small steps: a
/// Redis that blocks for a second is unreachable, and the sidecar then rejects payouts.
fn forget(redis: &Redis) -> anyhow::Result<()> {
    let mut connection = redis.connect()?;
    let mut at = 0_u64;
    loop {
        let (next, keys): (u64, Vec<Vec<u8>>) = redis::cmd("SCAN")
            .arg(at)
            .arg("MATCH")
            .arg("payout:{*")
            .arg("COUNT")
            .arg(1000)
            .query(&mut connection)?;
        if !keys.is_empty() {
            let _gone: u64 = redis::cmd("UNLINK").arg(keys).query(&mut connection)?;
        }
        if next == 0 {
            return Ok(());
        }
        at = next;
    }
}

pub fn start(common: &Common) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    println!(
        "| store | ms from exec to ready: least | median | most | MiB resident at rest | MiB of it anonymous |"
    );
    println!("|---|---|---|---|---|---|");
    for store in [Store::Redis, Store::File] {
        let mut times = Vec::new();
        let mut memory = (0, 0);
        for _ in 0..20 {
            let kind = Kind::Sidecar {
                to: To::Handler,
                store,
            };
            let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), 100)?;
            times.push(subject.ready_after);
            pause(Duration::from_millis(500));
            if let Some(process) = &subject.process {
                memory = process.memory()?;
            }
        }
        times.sort();
        let millis = |at: usize| times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3);
        let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
        println!(
            "| {} | {:.0} | {:.0} | {:.0} | {:.1} | {:.1} |",
            format!("{store:?}").to_lowercase(),
            millis(0),
            millis(times.len() / 2),
            millis(times.len() - 1),
            mib(memory.0),
            mib(memory.1)
        );
    }
    Ok(())
}
