//! Plays a customer's handler: takes the normalised request, pays, and responds in the request's encoding.

use axum::response::Response;

use super::books::{Paid, Payment};
use super::call::Call;
use super::{HandlerKind, World};

pub(super) fn failure(call: &Call, code: &str, text: &str) -> Response {
    call.respond(&[
        ("returnCode", "SUCCESS"),
        ("resultCode", "FAIL"),
        ("errCode", code),
        ("errCodeDes", text),
        ("mchBillno", &call.order_no),
    ])
}

pub(super) fn answer(call: &Call, world: &World, wrong_amount: bool) -> Response {
    if call.name == "status" {
        return status(call, world, wrong_amount);
    }
    let (Ok(amount), false) = (call.field("amount").parse::<i64>(), call.order_no.is_empty()) else {
        return call.respond(&[
            ("returnCode", "FAIL"),
            ("returnMsg", "amount and mchBillno are required"),
        ]);
    };
    let payment = Payment {
        endpoint: call.name.to_owned(),
        mch_id: call.field("mchId").to_owned(),
        order_no: call.order_no.clone(),
        openid: call.field("openid").to_owned(),
        amount,
        number: String::new(),
        paid_at: String::new(),
        parameters: call.fields.clone(),
    };
    let paid = match world.handler {
        HandlerKind::PaysEachCall => Paid::Once(world.books().pay(payment)),
        HandlerKind::Idempotent => world.books().pay_once(payment),
    };
    let Paid::Once(payment) = paid else {
        return failure(call, "PARAM_ERROR", "the number is known with other parameters");
    };
    let amount = payment.told_amount(wrong_amount);
    call.respond(&[
        ("returnCode", "SUCCESS"),
        ("resultCode", "SUCCESS"),
        ("mchBillno", &payment.order_no),
        ("mchId", &payment.mch_id),
        ("reOpenid", &payment.openid),
        ("totalAmount", &amount),
        ("sendListid", &payment.number),
    ])
}

fn status(call: &Call, world: &World, wrong_amount: bool) -> Response {
    let books = world.books();
    let Some(payment) = books.find(call.field("mchId"), &call.order_no) else {
        return failure(call, "NOT_FOUND", "no such order");
    };
    let amount = payment.told_amount(wrong_amount);
    call.respond(&[
        ("returnCode", "SUCCESS"),
        ("resultCode", "SUCCESS"),
        ("mchBillno", &payment.order_no),
        ("mchId", &payment.mch_id),
        ("status", books.status(&call.order_no).unwrap_or("SENT")),
        ("detailId", &payment.number),
        ("totalAmount", &amount),
        ("sendTime", &payment.paid_at),
    ])
}
