//! What the demo sends, and what should come back.

use std::net::SocketAddr;

use crate::rules::handler::{SEND_PATH, STATUS_PATH};

/// The app of every payout.
pub(super) const APP: &str = "wx8888888888888888";
/// The merchant that pays through (the stand-in for) WeChat Pay.
pub(super) const MERCHANT: &str = "1900000109";
/// The mapping: user ids and openids.
pub(super) const USERS: [(&str, &str); 2] = [
    ("user-1001", "oDEMO0000000000000000000001"),
    ("user-1002", "oDEMO0000000000000000000002"),
];
/// How many payments the script makes, whatever is repeated.
pub(super) const PAYMENTS: usize = 5;
/// The app whose payouts are transfers.
pub(super) const TRANSFER_APP: &str = "wxtransfer";

/// The merchants' configuration: a red packet over TLS with a client certificate, a transfer, a handler.
pub(super) fn configuration(stub: SocketAddr, tls: SocketAddr, token: &str) -> String {
    let tls = tls.port();
    format!(
        r#"[server]
listen = "127.0.0.1:0"
lame_duck = "0s"
[admin]
listen = "127.0.0.1:0"
token = "{token}"
[client_ip]
value = "203.0.113.7"
[identity]
source = "file"
path = "openids.csv"
[ledger]
store = "file"
path = "payouts.redb"
create = true
[limits]
max_amount = 20000
[wechat]
base_url = "https://localhost:{tls}"
ca = "stub-ca.crt"
[[merchant]]
mch_id = "{MERCHANT}"
to = "wechat"
product = "redpack"
send_name = "演示商户"
wishing = "恭喜发财"
api_key = "stub-api-key-0123456789abcdefghi"
cert = {{ file = "{MERCHANT}/apiclient_cert.pem" }}
key = {{ file = "{MERCHANT}/apiclient_key.pem" }}
[[merchant]]
mch_id = "{MERCHANT}"
wx_app_id = "{TRANSFER_APP}"
to = "wechat"
product = "transfer"
api_key = "stub-api-key-0123456789abcdefghi"
cert = {{ file = "{MERCHANT}/apiclient_cert.pem" }}
key = {{ file = "{MERCHANT}/apiclient_key.pem" }}
[[merchant]]
mch_id = "1900000200"
to = "handler"
handler_url = "http://{stub}"
"#
    )
}

/// One request, and the answer that it should get.
pub(super) struct Scene {
    pub(super) title: &'static str,
    pub(super) path: &'static str,
    pub(super) is_xml: bool,
    pub(super) body: String,
    /// Fields that the answer must have, with these values.
    pub(super) expected: &'static [(&'static str, &'static str)],
}

struct Payout {
    app: &'static str,
    mch_id: &'static str,
    order_no: &'static str,
    user: &'static str,
    amount: &'static str,
}

impl Payout {
    fn json(&self) -> String {
        let Self {
            app,
            mch_id,
            order_no,
            user,
            amount,
        } = self;
        format!(
            r#"{{"wxAppId":"{app}","mchId":"{mch_id}","mchBillno":"{order_no}","openid":"{user}","amount":{amount},"clientIp":"10.0.0.1","actName":"新年抽奖","remark":"恭喜中奖","tradeRecordId":1}}"#
        )
    }

    fn xml(&self) -> String {
        let Self {
            app,
            mch_id,
            order_no,
            user,
            amount,
        } = self;
        format!(
            "<xml><wxAppId>{app}</wxAppId><mchId>{mch_id}</mchId><mchBillno>{order_no}</mchBillno><openid>{user}</openid>\
             <amount>{amount}</amount><clientIp>10.0.0.1</clientIp><actName><![CDATA[新年抽奖]]></actName>\
             <remark>恭喜中奖</remark><tradeRecordId>2</tradeRecordId></xml>"
        )
    }
}

/// How many of the scenes ask for a payment.
pub(super) fn asking_to_pay() -> usize {
    scenes().iter().filter(|scene| scene.path == SEND_PATH).count()
}

/// The script.
pub(super) fn scenes() -> Vec<Scene> {
    const HANDLER: &str = "1900000200";
    let pay = |mch_id, order_no, user, amount| Payout {
        app: APP,
        mch_id,
        order_no,
        user,
        amount,
    };
    let send = |title, is_xml, payout: Payout, expected| Scene {
        title,
        path: SEND_PATH,
        is_xml,
        body: if is_xml { payout.xml() } else { payout.json() },
        expected,
    };
    let mut transfer = pay(MERCHANT, "DEMO0008", "user-1002", "250");
    transfer.app = TRANSFER_APP;
    let mini = pay(MERCHANT, "MINI0001", "user-1002", "150");
    vec![
        send(
            "red packet (红包)",
            false,
            pay(MERCHANT, "DEMO0001", "user-1001", "100"),
            &[
                ("resultCode", "SUCCESS"),
                ("mchBillno", "DEMO0001"),
                ("reOpenid", "user-1001"),
                ("totalAmount", "100"),
            ],
        ),
        send(
            "red packet (红包)",
            true,
            pay(MERCHANT, "DEMO0002", "user-1002", "200"),
            &[("resultCode", "SUCCESS"), ("mchBillno", "DEMO0002")],
        ),
        Scene {
            title: "mini-program red packet",
            path: SEND_PATH,
            is_xml: false,
            body: mini
                .json()
                .replacen('{', "{\"notifyWay\":\"MINI_PROGRAM_JSAPI\",", 1),
            expected: &[("resultCode", "SUCCESS"), ("mchBillno", "MINI0001")],
        },
        send(
            "transfer to the balance (付款到零钱)",
            false,
            transfer,
            &[
                ("resultCode", "SUCCESS"),
                ("partnerTradeNo", "DEMO0008"),
                ("mchAppid", TRANSFER_APP),
            ],
        ),
        send(
            "through the customer's handler",
            true,
            pay(HANDLER, "DEMO0003", "user-1001", "300"),
            &[("resultCode", "SUCCESS"), ("mchBillno", "DEMO0003")],
        ),
        send(
            "the first one again: answered, not paid",
            false,
            pay(MERCHANT, "DEMO0001", "user-1001", "100"),
            &[("resultCode", "SUCCESS"), ("mchBillno", "DEMO0001")],
        ),
        send(
            "the same number, another amount",
            false,
            pay(MERCHANT, "DEMO0001", "user-1001", "101"),
            &[("resultCode", "FAIL"), ("errCode", "PARAM_ERROR")],
        ),
        send(
            "over the limit: refused",
            false,
            pay(MERCHANT, "DEMO0004", "user-1001", "20001"),
            &[("resultCode", "FAIL"), ("errCode", "AMOUNT_LIMIT")],
        ),
        send(
            "under WeChat's minimum: refused there",
            false,
            pay(MERCHANT, "DEMO0005", "user-1001", "99"),
            &[("resultCode", "FAIL"), ("errCode", "MONEY_LIMIT")],
        ),
        send(
            "a user without an openid",
            true,
            pay(MERCHANT, "DEMO0006", "user-9999", "100"),
            &[("resultCode", "FAIL"), ("errCode", "OPENID_ERROR")],
        ),
        send(
            "an amount that is no integer",
            false,
            pay(MERCHANT, "DEMO0007", "user-1001", "1.5"),
            &[("returnCode", "FAIL"), ("errCode", "PARAM_ERROR")],
        ),
        Scene {
            title: "how does the first one stand?",
            path: STATUS_PATH,
            is_xml: false,
            body: format!(
                r#"{{"wxAppId":"{APP}","mchId":"{MERCHANT}","mchBillno":"DEMO0001","tradeRecordId":"1"}}"#
            ),
            expected: &[
                ("resultCode", "SUCCESS"),
                ("status", "SENT"),
                ("totalAmount", "100"),
            ],
        },
    ]
}
