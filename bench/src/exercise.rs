//! `exercise`: a piece of a sidecar's life, for `scripts/order`, which notes what runs in it. It rests; it pays in every
//! set-up, is asked again and how payouts stand, proxies, and is looked at; and ends in an orderly way.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context as _;

use crate::Common;
use crate::load::{Encoding, Load, PAYOUT, Pace, Until};
use crate::meter::pause;
use crate::subject::{Kind, Store, Subject, To, get};
use crate::upstream::Upstream;

const USERS: u64 = 10_000;
/// Of every other kind of request, one after the other.
const OTHERS: usize = 50;

/// `payouts` of each encoding in each set-up.
pub fn exercise(common: &Common, payouts: u64) -> anyhow::Result<()> {
    let pki = tempfile::tempdir()?;
    let upstream = Upstream::start(pki.path())?;
    for store in [Store::Redis, Store::File] {
        eprintln!("exercise: at rest, {store:?}");
        let kind = Kind::Sidecar {
            to: To::Handler,
            store,
        };
        let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), USERS)?;
        pause(Duration::from_secs(2));
        subject.end()?;
    }
    for to in [To::Handler, To::Wechat] {
        for store in [Store::Redis, Store::File] {
            eprintln!("exercise: {to:?} {store:?}");
            let kind = Kind::Sidecar { to, store };
            let subject = Subject::start(kind, &common.sidecar, &upstream, pki.path(), USERS)?;
            for encoding in [Encoding::Json, Encoding::Xml] {
                let load = Load {
                    address: subject.address,
                    connections: common.connections,
                    encoding,
                    path: PAYOUT,
                    users: USERS,
                };
                load.run(Pace::Saturation, Until::Count(payouts))?
                    .whole("exercise")?;
            }
            for request in others() {
                again_and_again(subject.address, &request, OTHERS)?;
            }
            for path in ["/metrics", "/readyz", "/livez"] {
                for _ in 0..5 {
                    get(subject.admin.context("a sidecar has an admin port")?, path);
                }
            }
            subject.end()?;
        }
    }
    Ok(())
}

/// The same order again, how it stands, and what is proxied, without a body and with one.
fn others() -> Vec<Vec<u8>> {
    let known = "\"wxAppId\":\"wx8888888888888888\",\"mchId\":\"1900000109\",\"mchBillno\":\"EXERCISE1\"";
    let send = format!(
        "{{{known},\"openid\":\"u1\",\"amount\":100,\"clientIp\":\"10.0.0.1\",\"actName\":\"新年抽奖\",\"tradeRecordId\":1}}"
    );
    let status = format!("{{{known},\"tradeRecordId\":1}}");
    let post = |path: &str, body: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: sidecar\r\nUser-Agent: exercise\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let all = [
        post("/pay/sendApiRedPack", &send),
        post("/pay/getApiRedPacketStatus", &status),
        "GET /orders/1?page=2 HTTP/1.1\r\nHost: sidecar\r\nUser-Agent: exercise\r\nAccept: */*\r\n\r\n"
            .to_owned(),
        post("/orders", &"0123456789".repeat(200)),
    ];
    all.into_iter().map(String::into_bytes).collect()
}

/// The same request on one connection; whatever is answered, it is answered.
fn again_and_again(address: SocketAddr, request: &[u8], times: usize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    let mut answer = [0; 16 * 1024];
    for _ in 0..times {
        stream.write_all(request)?;
        anyhow::ensure!(stream.read(&mut answer)? > 0, "the sidecar closed a connection");
    }
    Ok(())
}
