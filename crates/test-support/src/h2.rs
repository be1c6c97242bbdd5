//! HTTP/2 frame by frame: a test can send anything, and can leave responses unread.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const WINDOW_UPDATE: u8 = 8;

/// Flags of a frame.
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// The connection preface, with a window of `window` bytes per response and a large one for the connection.
pub fn preface(window: u32) -> Vec<u8> {
    let settings = [&[0, 4][..], &window.to_be_bytes()].concat();
    [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &frame(SETTINGS, 0, 0, &settings),
        &frame(WINDOW_UPDATE, 0, 0, &1_000_000_000u32.to_be_bytes()),
    ]
    .concat()
}

/// The head of a request. `flags` says whether a body follows.
pub fn head(stream: u32, method: &str, path: &str, flags: u8) -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()][..], text.as_bytes()].concat();
    // Indexed `:scheme: http`; literals for the names 2 (`:method`), 4 (`:path`) and 1 (`:authority`).
    let block = [
        vec![0x86],
        [vec![0x02], text(method)].concat(),
        [vec![0x04], text(path)].concat(),
        [vec![0x01], text("sidecar")].concat(),
    ];
    frame(HEADERS, END_HEADERS | flags, stream, &block.concat())
}

/// Connects and sends these bytes.
pub async fn connect(address: SocketAddr, bytes: &[u8]) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    stream.write_all(bytes).await?;
    Ok(stream)
}

/// Reads the next frame: kind, flags, stream, payload.
pub async fn read_frame(stream: &mut TcpStream) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await?;
    let number = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    Ok((head[3], head[4], number, payload))
}
