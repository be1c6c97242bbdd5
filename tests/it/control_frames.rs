//! HTTP/2 control frames: a flood of them ends the connection; those of a busy client do not.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::h2::{
    ACK, DATA, END_STREAM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE, connect, frame,
    head, preface, read_frame,
};

async fn sidecar() -> (Upstream, Sidecar) {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let configuration = format!(
        "[server]\nhttp2 = true\n{}{}",
        embedded(&dir),
        upstream.configuration()
    );
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    (upstream, sidecar)
}

/// Sends a hundred thousand frames, and waits until the other side closes the connection.
async fn flood(mut stream: TcpStream, one: Vec<u8>) {
    let (mut back, mut forth) = stream.split();
    let sent = async {
        for _ in 0..1000 {
            if forth.write_all(&one.repeat(100)).await.is_err() {
                return;
            }
        }
    };
    // Reads the responses so that neither side blocks on a full buffer.
    let ended = async {
        let mut buffer = vec![0; 65_536];
        while back.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
    };
    tokio::join!(sent, ended);
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_end_the_connection() {
    let (_upstream, sidecar) = sidecar().await;
    for (name, one) in [
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("PING ACK", frame(PING, ACK, 0, &[0; 8])),
        ("PRIORITY", frame(PRIORITY, 0, 7, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("RST_STREAM", frame(RST_STREAM, 0, 1, &[0, 0, 0, 8])),
        ("empty DATA", frame(DATA, 0, 1, &[])),
        ("an unknown type", frame(0xee, 0, 0, &[])),
    ] {
        let begin = [preface(65_535), head(1, "POST", "/up", 0)].concat();
        let stream = connect(sidecar.main, &begin).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(60), flood(stream, one)).await;
        assert!(ended.is_ok(), "{name}: the connection stays");
    }
    assert_eq!(
        sidecar.pay(Encoding::Json, &Payout::new("CF1")).await.code(),
        "SUCCESS"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_client_that_pings_is_served() {
    let (_upstream, sidecar) = sidecar().await;
    let mut stream = connect(sidecar.main, &preface(65_535)).await.unwrap();
    // Six times the allowance of control frames: a priority, two pings and three window updates with each request.
    for number in 0..2000 {
        let id = 2 * number + 1;
        let bytes = [
            frame(PRIORITY, 0, id, &[0, 0, 0, 0, 1]),
            head(id, "GET", "/shop", END_STREAM),
            frame(PING, 0, 0, &[1; 8]),
            frame(PING, 0, 0, &[2; 8]),
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(3),
        ];
        stream.write_all(&bytes.concat()).await.unwrap();
        let mut is_answered = false;
        let mut pongs = 0;
        while !is_answered || pongs < 2 {
            let (kind, flags, stream_id, _) = read_frame(&mut stream).await.unwrap();
            is_answered |= matches!(kind, DATA | HEADERS) && stream_id == id && flags & END_STREAM != 0;
            pongs += usize::from(kind == PING && flags & ACK != 0);
        }
    }
}
