//! Sends a bill's notification on demand: encrypts its state, signs it, and posts it to the `notify_url` of its
//! request.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;

use super::{Spoilt, bill, describe, keys, sign, state};
use crate::books::Posted;
use crate::{Failure, World};

/// How long the sidecar may take to respond.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Sends the notification of an order, and returns the HTTP status of the response. `how`:
///
/// | word | what the fake sends |
/// |---|---|
/// | empty, `platform` | the bill's state, signed with the public key or with the platform certificate |
/// | `again` | the last notification again, byte for byte |
/// | `signature` `serial` `stale` `probe` `body` `absent` | the bill's state, with this [`Spoilt`] signature |
/// | `amount` `number` `merchant` | another amount, number or merchant, correctly signed |
/// | `event` `key` | another event type; a resource that does not decrypt |
pub(crate) async fn notify(world: &World, order_no: &str, how: &str) -> Result<u16, Failure> {
    let posted = if how == "again" {
        let kept = world.books().notification(order_no);
        kept.ok_or("no notification was sent yet")?
    } else {
        let posted = compose(world, order_no, how)?;
        world.books().keep_notification(order_no, posted.clone());
        posted
    };
    let (url, headers, body) = posted;
    let request = Request::post(url).header(CONTENT_TYPE, "application/json");
    let request = headers
        .into_iter()
        .fold(request, |request, (name, value)| request.header(name, value))
        .body(Full::new(Bytes::from(body)))?;
    // This client uses no proxy of the environment, follows no redirect, and sends nothing twice.
    let client = Client::builder(TokioExecutor::new())
        .retry_canceled_requests(false)
        .build_http();
    let answer = tokio::time::timeout(TIMEOUT, client.request(request)).await??;
    Ok(answer.status().as_u16())
}

fn compose(world: &World, order_no: &str, how: &str) -> Result<Posted, Failure> {
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
        "number" => _ = inside.insert("out_bill_no", "NOBODYSORDER".into()),
        "merchant" => _ = inside.insert("mch_id", "1999999999".into()),
        _ => {}
    }
    let mut resource = keys::seal(&json!(inside).to_string(), "mch_payment");
    if how == "key" {
        resource.insert("associated_data", "another".to_owned());
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
        "" | "platform" | "amount" | "number" | "merchant" | "event" | "key" => None,
        word => Some(Spoilt::of(word)?),
    };
    let headers = sign(world, how != "platform", &text, spoilt)?;
    let text = match spoilt {
        Some(Spoilt::Body) => text.replace("mch_payment", "mch-payment"),
        Some(_) | None => text,
    };
    Ok((url.clone(), headers, text))
}
