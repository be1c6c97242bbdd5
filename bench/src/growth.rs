//! `growth`: how cost grows with connections, known users and recorded payouts. It measures JSON calls to a
//! handler, with Redis and with embedded stores.

use crate::Common;
use crate::load::{Encoding, Load, PAYOUT, Rate, Until};
use crate::report::{Cost, measure};
use crate::subject::{Kind, Store, Subject, To};
use crate::upstream::Upstream;

pub fn growth(common: &Common, most: u64) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    let start = |store, users| {
        Subject::start(
            Kind::Sidecar {
                to: To::Handler,
                store,
            },
            &common.sidecar,
            &upstream,
            pki.path(),
            users,
        )
    };
    println!("| grows | to | CPU µs | per s | p99 µs at a third | MiB under load |");
    println!("|---|---|---|---|---|---|");
    let subject = start(Store::Redis, 10_000)?;
    for connections in [16, 64, 256, 1024, 4096] {
        let common = Common {
            connections,
            ..common.clone()
        };
        row(
            "connections",
            connections,
            &measure(&subject, &upstream, Encoding::Json, &common, 10_000)?,
        );
    }
    drop(subject);
    for users in steps(10, most) {
        let subject = start(Store::Redis, users)?;
        row(
            "known users, Redis",
            users,
            &measure(&subject, &upstream, Encoding::Json, common, users)?,
        );
    }
    for users in steps(10, most) {
        let subject = start(Store::File, users)?;
        row(
            "known users, file",
            users,
            &measure(&subject, &upstream, Encoding::Json, common, users)?,
        );
    }
    for store in [Store::Redis, Store::File] {
        let subject = start(store, 10_000)?;
        let mut recorded = 0;
        for records in std::iter::once(0).chain(steps(1_000, most)) {
            let load = Load {
                address: subject.address,
                connections: 256,
                encoding: Encoding::Json,
                path: PAYOUT,
                users: 10_000,
            };
            if records > recorded {
                let filled = load
                    .run(Rate::Saturation, Until::Count(records - recorded))?
                    .whole("filling the ledger")?;
                recorded += filled.paid;
            }
            let cost = measure(&subject, &upstream, Encoding::Json, common, 10_000)?;
            row(&format!("records, {store:?}").to_lowercase(), records, &cost);
            // `measure` records payouts, too: estimate how many (saturation, and a third of its rate).
            recorded += (cost.per_second * common.time().as_secs_f64() * 1.5) as u64;
        }
    }
    Ok(())
}

/// `from`, each hundredfold of it below `most`, and `most`.
fn steps(from: u64, most: u64) -> Vec<u64> {
    let mut all: Vec<u64> = std::iter::successors(Some(from), |at| at.checked_mul(100))
        .take_while(|at| *at < most)
        .collect();
    all.push(most);
    all
}

fn row(what: &str, to: impl std::fmt::Display, cost: &Cost) {
    println!(
        "| {what} | {to} | {:.1} | {:.0} | {:.0} | {:.1} |",
        cost.cpu_micros,
        cost.per_second,
        cost.latency[1],
        cost.memory[1] as f64 / 1_048_576.0
    );
}
