//! Notifications on demand: what became of a bill, wrapped, signed, and posted to the `notify_url` of its request.

use http::HeaderMap;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::{Spoilt, bill, describe, keys, put, sign, state};
use crate::stub::World;

/// Sends the notification of an order, and returns the status that it was answered with. `how`:
///
/// | word | what is sent |
/// |---|---|
/// | empty, `platform` | the bill's state, signed with the public key or with the platform certificate |
/// | `again` | the last one once more, byte for byte |
/// | `signature` `serial` `stale` `probe` `body` `absent` | with such a fault in its signature |
/// | `amount` `number` `merchant` | about another amount, number or merchant, correctly signed |
/// | `event` `key` | of another event; wrapped under another key |
pub(in crate::stub) async fn notify(world: &World, order_no: &str, how: &str) -> Result<u16, String> {
    let (url, headers, body) = if how == "again" {
        let kept = world.books().notification(order_no);
        kept.ok_or("no notification was sent yet")?
    } else {
        let (url, headers, body) = compose(world, order_no, how)?;
        world
            .books()
            .keep_notification(order_no, (url.clone(), headers.clone(), body.clone()));
        (url, headers, body)
    };
    post(&url, &headers, &body).await
}

fn compose(world: &World, order_no: &str, how: &str) -> Result<(String, HeaderMap, String), String> {
    let books = world.books();
    let payment = books
        .payments()
        .iter()
        .find(|payment| payment.order_no == order_no);
    let payment = payment.ok_or("no such bill")?.clone();
    let word = state(&books, order_no);
    drop(books);
    let url = payment
        .parameters
        .get("notify_url")
        .ok_or("the bill has no notify_url")?;
    let mut inside = bill(&payment, &word);
    describe(&mut inside, &payment, i64::from(how == "amount"));
    match how {
        "number" => put(&mut inside, "out_bill_no", "NOBODYSORDER".to_owned()),
        "merchant" => put(&mut inside, "mch_id", "1999999999".to_owned()),
        _ => {}
    }
    let mut resource = keys::seal(&inside.to_string(), "mch_payment");
    if how == "key" {
        put(&mut resource, "associated_data", "another".to_owned());
    }
    let event = if how == "event" {
        "TRANSACTION.SUCCESS"
    } else {
        "MCHTRANSFER.BILL.FINISHED"
    };
    let text = json!({
        "id": "stub",
        "create_time": "2026-01-01T00:00:00+08:00",
        "resource_type": "encrypt-resource",
        "event_type": event,
        "summary": "商家转账单据终态通知",
        "resource": resource,
    })
    .to_string();
    let spoilt = match how {
        "signature" => Some(Spoilt::Signature),
        "serial" => Some(Spoilt::Serial),
        "stale" => Some(Spoilt::Stale),
        "probe" => Some(Spoilt::Probe),
        "body" => Some(Spoilt::Body),
        "absent" => Some(Spoilt::Absent),
        "" | "platform" | "amount" | "number" | "merchant" | "event" | "key" => None,
        other => return Err(format!("{other:?} is no way to notify")),
    };
    let headers = sign(world, how != "platform", &text, spoilt)?;
    let text = match spoilt {
        Some(Spoilt::Body) => text.replace("mch_payment", "mch-payment"),
        Some(_) | None => text,
    };
    Ok((url.clone(), headers, text))
}

async fn post(url: &str, headers: &HeaderMap, body: &str) -> Result<u16, String> {
    let rest = url
        .strip_prefix("http://")
        .ok_or("the stub notifies over plain http only")?;
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let failed = |error: std::io::Error| format!("{authority}: {error}");
    let mut stream = TcpStream::connect(authority).await.map_err(failed)?;
    let mut text = format!("POST /{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap_or_default()));
    }
    text.push_str(&format!(
        "Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    stream.write_all(text.as_bytes()).await.map_err(failed)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.map_err(failed)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    status.ok_or_else(|| "no answer".to_owned())
}
