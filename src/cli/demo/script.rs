//! The demo's requests and the expected answers.

use std::net::SocketAddr;

use payout_domain::encoding::Encoding::{self, Json, Xml};
use payout_domain::fields::Fields;
use payout_domain::handler::{SEND_PATH, STATUS_PATH};

/// The app of all payouts except the transfer.
pub(super) const APP: &str = "wx8888888888888888";
/// The merchant that pays through WeChat Pay, which fake-wechat simulates.
pub(super) const MERCHANT: &str = "1900000109";
/// The mapping: user ids and openids.
pub(super) const USERS: [(&str, &str); 2] = [
    ("user-1001", "oDEMO0000000000000000000001"),
    ("user-1002", "oDEMO0000000000000000000002"),
];
/// How many payments the script must cause, although it repeats requests.
pub(super) const PAYMENTS: usize = 5;
/// The app whose payouts are transfers.
pub(super) const TRANSFER_APP: &str = "wxtransfer";

/// The demo's configuration: a red packet over TLS with a client certificate, a transfer, a handler.
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

/// One request and its expected answer.
pub(super) struct Scene {
    pub(super) title: &'static str,
    pub(super) path: &'static str,
    pub(super) encoding: Encoding,
    pub(super) body: String,
    /// The fields that the answer must have, each with its value.
    pub(super) expected: &'static str,
}

struct Payout {
    app: &'static str,
    mch_id: &'static str,
    order_no: &'static str,
    user: &'static str,
    amount: &'static str,
    more: &'static [(&'static str, &'static str)],
}

impl Payout {
    fn body(&self, encoding: Encoding) -> String {
        let mut fields = Fields::new();
        for (name, text) in [
            ("wxAppId", self.app),
            ("mchId", self.mch_id),
            ("mchBillno", self.order_no),
            ("openid", self.user),
            ("amount", self.amount),
            ("clientIp", "10.0.0.1"),
            ("actName", "新年抽奖"),
            ("remark", "恭喜中奖"),
            ("tradeRecordId", "1"),
        ] {
            fields.set(name, text);
        }
        for (name, text) in self.more {
            fields.set(name, *text);
        }
        encoding.encode_answer(&fields)
    }
}

/// How many of the scenes ask for a payment.
pub(super) fn asking_to_pay() -> usize {
    scenes().iter().filter(|scene| scene.path == SEND_PATH).count()
}

/// All requests, in order.
pub(super) fn scenes() -> Vec<Scene> {
    const HANDLER: &str = "1900000200";
    let pay = |mch_id, order_no, user, amount| Payout {
        app: APP,
        mch_id,
        order_no,
        user,
        amount,
        more: &[],
    };
    let send = |title, encoding, payout: Payout, expected| Scene {
        title,
        path: SEND_PATH,
        encoding,
        body: payout.body(encoding),
        expected,
    };
    let mut transfer = pay(MERCHANT, "DEMO0008", "user-1002", "250");
    transfer.app = TRANSFER_APP;
    let mut mini = pay(MERCHANT, "MINI0001", "user-1002", "150");
    mini.more = &[("notifyWay", "MINI_PROGRAM_JSAPI")];
    vec![
        send(
            "red packet (红包)",
            Json,
            pay(MERCHANT, "DEMO0001", "user-1001", "100"),
            "resultCode=SUCCESS mchBillno=DEMO0001 reOpenid=user-1001 totalAmount=100",
        ),
        send(
            "red packet (红包)",
            Xml,
            pay(MERCHANT, "DEMO0002", "user-1002", "200"),
            "resultCode=SUCCESS mchBillno=DEMO0002",
        ),
        send(
            "mini-program red packet",
            Json,
            mini,
            "resultCode=SUCCESS mchBillno=MINI0001",
        ),
        send(
            "transfer to the balance (付款到零钱)",
            Json,
            transfer,
            "resultCode=SUCCESS partnerTradeNo=DEMO0008 mchAppid=wxtransfer",
        ),
        send(
            "through the customer's handler",
            Xml,
            pay(HANDLER, "DEMO0003", "user-1001", "300"),
            "resultCode=SUCCESS mchBillno=DEMO0003",
        ),
        send(
            "the first one again: answered, not paid",
            Json,
            pay(MERCHANT, "DEMO0001", "user-1001", "100"),
            "resultCode=SUCCESS mchBillno=DEMO0001",
        ),
        send(
            "the same number, another amount",
            Json,
            pay(MERCHANT, "DEMO0001", "user-1001", "101"),
            "resultCode=FAIL errCode=PARAM_ERROR",
        ),
        send(
            "over the limit: refused",
            Json,
            pay(MERCHANT, "DEMO0004", "user-1001", "20001"),
            "resultCode=FAIL errCode=AMOUNT_LIMIT",
        ),
        send(
            "under WeChat's minimum: refused there",
            Json,
            pay(MERCHANT, "DEMO0005", "user-1001", "99"),
            "resultCode=FAIL errCode=MONEY_LIMIT",
        ),
        send(
            "a user without an openid",
            Xml,
            pay(MERCHANT, "DEMO0006", "user-9999", "100"),
            "resultCode=FAIL errCode=OPENID_ERROR",
        ),
        send(
            "an amount that is no integer",
            Json,
            pay(MERCHANT, "DEMO0007", "user-1001", "1.5"),
            "returnCode=FAIL errCode=PARAM_ERROR",
        ),
        Scene {
            title: "how does the first one stand?",
            path: STATUS_PATH,
            encoding: Json,
            body: format!(
                r#"{{"wxAppId":"{APP}","mchId":"{MERCHANT}","mchBillno":"DEMO0001","tradeRecordId":"1"}}"#
            ),
            expected: "resultCode=SUCCESS status=SENT totalAmount=100",
        },
    ]
}
