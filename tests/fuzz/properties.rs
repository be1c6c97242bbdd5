//! The properties that must hold for any input: one function per target, from bytes to assertions.
//! `tests/fuzz/main.rs` runs them over the corpus and its mutations as a test; `fuzz/` runs them under
//! libFuzzer, without a time limit.

use payout_domain::contract::send::SendRequest;
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{Fen, HandlerId, Moment, OpenId};
use payout_domain::order::parameters::Parameters;
use payout_domain::order::{Destination, Lease, NewOrder, Order};
use payout_domain::outcome::{Evidence, Finding, Found};
use payout_domain::secret::Secret;
use payout_domain::wechat::Product;
use payout_domain::wechat::v2::{self, Texts};
use payout_domain::wechat::v3::answer::{self as v3, Notification, Signature};
use payout_domain::xml::{self, Nested};
use payout_domain::{handler, json};

use payout_sidecar::server::framing::{Framer, FramingError};

/// A target's name and its property.
pub type Property = (&'static str, fn(&[u8]));

/// All targets.
pub const ALL: [Property; 6] = [
    ("json", json_codec),
    ("xml", xml_codec),
    ("wechat", wechat_answers),
    ("handler", handler_answers),
    ("config", configuration),
    ("framing", requests_framed),
];

/// Decoded JSON fields survive encoding and decoding again. If they are a request, `request_of` must hold.
pub fn json_codec(data: &[u8]) {
    if let Ok(fields) = Encoding::Json.decode(data) {
        let again = json::encode(&fields);
        assert_eq!(json::decode(&again).ok().as_ref(), Some(&fields), "{again}");
        request_of(fields);
    }
}

/// The same for XML.
pub fn xml_codec(data: &[u8]) {
    if let Ok(fields) = Encoding::Xml.decode(data) {
        if let Ok(again) = xml::encode(&fields) {
            let read = xml::decode(&again, Nested::Refuse);
            assert_eq!(read.ok().as_ref(), Some(&fields), "{again}");
        }
        request_of(fields);
    }
}

/// A request goes to WeChat and to a handler with exactly the parameters that the order records, whatever the caller
/// wrote into its fields.
fn request_of(fields: Fields<'_>) {
    let Ok(request) = SendRequest::read(fields) else {
        return;
    };
    let openid = OpenId::parse("oX12abcdefghijk9f").expect("an openid");
    let texts = Texts {
        send_name: "商户".into(),
        wishing: "恭喜发财".into(),
        scene_id: None,
    };
    let address = Some([203, 0, 113, 7].into());
    for product in [Product::Redpack, Product::MiniProgramRedpack, Product::Transfer] {
        if let Ok(parameters) = v2::parameters(product, &request, &texts, &openid, address) {
            signed_as_it_is_read(&parameters);
        }
    }
    for encoding in [Encoding::Json, Encoding::Xml] {
        if let Ok(parameters) = handler::parameters(&request, &openid, address, encoding) {
            let parameters = Parameters::from(parameters);
            let body = handler::body(&parameters, &request.credentials, encoding);
            let read = encoding
                .decode(body.as_bytes())
                .expect("what we write can be read");
            for (name, value) in parameters.iter() {
                assert_eq!(
                    read.characters(name),
                    parameters.characters(name),
                    "{name} {value:?}"
                );
            }
        }
    }
}

/// Another XML library reads exactly the signed fields from the body, and an independent implementation
/// computes the same signature.
fn signed_as_it_is_read(parameters: &Fields<'_>) {
    let key = Secret::new("k".repeat(32));
    let body = v2::signed_body(parameters, "n", &key).expect("texts were checked when they were read");
    let document = roxmltree::Document::parse(&body).expect("XML");
    let mut read: Vec<(String, String)> = Vec::new();
    for element in document
        .root_element()
        .children()
        .filter(roxmltree::Node::is_element)
    {
        let text: String = element.children().filter_map(|child| child.text()).collect();
        read.push((element.tag_name().name().to_owned(), text));
    }
    let at = read
        .iter()
        .position(|(name, _)| name == "sign")
        .expect("a signature");
    let (_, sign) = read.remove(at);
    let mut expected: Vec<(String, String)> = parameters
        .iter()
        .map(|(name, value)| (name.to_owned(), value.characters().to_owned()))
        .chain([("nonce_str".to_owned(), "n".to_owned())])
        .collect();
    expected.sort();
    read.sort();
    assert_eq!(read, expected, "{body}");
    let mut text = String::new();
    for (name, value) in read.iter().filter(|(_, value)| !value.is_empty()) {
        text.push_str(&format!("{name}={value}&"));
    }
    text.push_str(&format!("key={}", key.expose()));
    let digest = <md5::Md5 as md5::Digest>::digest(text.as_bytes());
    let digest: String = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    assert_eq!(sign, digest);
}

fn order(upstream: Destination) -> Order {
    let text = r#"{"wxAppId":"wx1","mchId":"19","mchBillno":"A1","openid":"u","amount":100,"actName":"a","remark":"r","tradeRecordId":7}"#;
    let request = SendRequest::read(json::decode(text).expect("JSON")).expect("a request");
    let new = NewOrder {
        upstream,
        encoding: Encoding::Json,
        openid: OpenId::parse("oX12abcdefghijk9f").expect("an openid"),
        parameters: Fields::new(),
        charges: vec![],
    };
    let lease = Lease {
        nonce: 1,
        length: std::time::Duration::from_secs(30),
    };
    Order::claimed(&request, new, lease, Moment::from((1_795_449_599_999, 0)))
}

/// Whether the evidence is "no answer": all that may follow from an unreadable response.
fn says_nothing(evidence: &Evidence) -> bool {
    matches!(evidence, Evidence::NoAnswer { .. })
}

fn finds_nothing(finding: &Finding) -> bool {
    matches!(finding.found, Found::Unclear { .. })
}

/// Takes the status from the first byte. The rest is the body.
fn status_and_body(data: &[u8]) -> Option<(u16, &[u8])> {
    let (first, body) = data.split_first()?;
    let statuses = [200, 200, 200, 200, 201, 400, 404, 500];
    statuses
        .get(usize::from(*first) % statuses.len())
        .map(|status| (*status, body))
}

/// WeChat Pay's responses, v2 and v3: an unreadable one proves nothing. In v3 neither does one with a wrong signature,
/// nor one without a signature unless its status is 4xx.
pub fn wechat_answers(data: &[u8]) {
    let Some((status, body)) = status_and_body(data) else {
        return;
    };
    let is_xml = std::str::from_utf8(body).is_ok_and(|text| xml::decode(text, Nested::Skip).is_ok());
    for product in [Product::Redpack, Product::MiniProgramRedpack, Product::Transfer] {
        let order = order(Destination::Wechat(product));
        let evidence = v2::evidence(product, &order, status, body);
        let expected = Some((order.amount, &order.openid));
        let finding = v2::finding(product, &order.key, expected, status, body);
        if !is_xml || status != 200 {
            assert!(says_nothing(&evidence), "{evidence:?}");
            assert!(finds_nothing(&finding), "{finding:?}");
        }
    }
    let bill = order(Destination::TransferBill);
    let is_json = std::str::from_utf8(body).is_ok_and(|text| json::decode(text).is_ok());
    let wrong = Err("the signature is wrong".to_owned());
    assert!(says_nothing(&v3::evidence(&bill, status, &wrong, body)));
    let expected = Some((bill.amount, &bill.openid));
    assert!(finds_nothing(&v3::finding(
        &bill.key, expected, status, &wrong, body
    )));
    for signature in [Ok(Signature::Verified), Ok(Signature::Absent)] {
        let evidence = v3::evidence(&bill, status, &signature, body);
        let finding = v3::finding(&bill.key, expected, status, &signature, body);
        let is_believed = is_json && (signature == Ok(Signature::Verified) || (400..500).contains(&status));
        if !is_believed {
            assert!(says_nothing(&evidence), "{evidence:?}");
            assert!(finds_nothing(&finding), "{finding:?}");
        }
    }
    if let Ok(text) = std::str::from_utf8(body)
        && let Ok(notification) = Notification::read(text)
    {
        let _finding = notification.finding(&bill);
    }
}

/// A handler's responses, in either encoding: an unreadable one never proves a payment.
pub fn handler_answers(data: &[u8]) {
    let Some((status, body)) = status_and_body(data) else {
        return;
    };
    let order = order(Destination::Handler(
        HandlerId::parse("http://127.0.0.1:8000").unwrap(),
    ));
    let amount = Fen::new(100).expect("an amount");
    let is_contract = Encoding::of_request(None, body).is_ok_and(|encoding| encoding.decode(body).is_ok());
    let evidence = handler::evidence(&order.key, amount, status, body);
    if !is_contract && !(400..500).contains(&status) {
        assert!(says_nothing(&evidence), "{evidence:?}");
    }
    if let Evidence::Accepted { .. } = evidence {
        assert!(is_contract, "accepted without a contract body");
    }
    let finding = handler::finding(&order.key, Some(amount), status, body);
    if !is_contract {
        assert!(finds_nothing(&finding), "{finding:?}");
    }
}

/// Loading a configuration succeeds, or fails with at least one mistake.
pub fn configuration(data: &[u8]) {
    let shared = std::path::Path::new("/dev/shm");
    let dir = if shared.is_dir() {
        shared.to_owned()
    } else {
        std::env::temp_dir()
    };
    let path = dir.join(format!("payout-sidecar-fuzz-{}.toml", std::process::id()));
    std::fs::write(&path, data).expect("a file in memory");
    let read = payout_sidecar::config::load(&path, std::iter::empty());
    std::fs::remove_file(&path).expect("the same file");
    match read {
        Ok(config) => assert!(!config.files.is_empty()),
        Err(errors) => assert!(!errors.errors.is_empty(), "refused without a reason"),
    }
}

/// What the framer passes on of HTTP/1 requests does not depend on how the input is split. Each request has the
/// same length for a plain parser, and so has the replacement of a faulty head.
pub fn requests_framed(data: &[u8]) {
    let whole = passed_on(data, data.len().max(1));
    for size in [1, 2, 7] {
        assert_eq!(passed_on(data, size), whole, "in pieces of {size}");
    }
    for request in &whole.0 {
        assert_eq!(plain_length(request), Some(request.len()), "{request:?}");
    }
}

/// Feeds the framer in pieces of `size` bytes. Returns the complete requests, the part of the last one, and its
/// fault.
fn passed_on(data: &[u8], size: usize) -> (Vec<Vec<u8>>, Vec<u8>, Option<FramingError>) {
    let mut framer = Framer::new(64 * 1024);
    let (mut requests, mut passed, mut buffered) = (Vec::new(), Vec::new(), Vec::new());
    for piece in data.chunks(size) {
        buffered.extend_from_slice(piece);
        loop {
            let step = framer.advance(&buffered);
            passed.extend(buffered.drain(..step.pass));
            if let Some(fault) = step.fault {
                if framer.is_in_head() {
                    let stand_in = framer.stand_in(&buffered, fault);
                    assert_eq!(plain_length(&stand_in), Some(stand_in.len()), "{stand_in:?}");
                    let again = Framer::new(64 * 1024).advance(&stand_in);
                    assert_eq!((again.pass, again.fault), (stand_in.len(), None), "{stand_in:?}");
                }
                return (requests, passed, Some(fault));
            }
            if !framer.is_ended() {
                break;
            }
            requests.push(std::mem::take(&mut passed));
            framer.begin();
        }
    }
    (requests, passed, None)
}

/// The length of a request for a parser that knows only strict lines.
fn plain_length(request: &[u8]) -> Option<usize> {
    let find = |text: &[u8], part: &[u8]| text.windows(part.len()).position(|window| window == part);
    let mut start = 0;
    while request[start..].starts_with(b"\r\n") {
        start += 2;
    }
    let end = start + find(&request[start..], b"\r\n\r\n")? + 2;
    let head = std::str::from_utf8(&request[start..end]).map_or_else(
        |_| request[start..end].iter().copied().map(char::from).collect(),
        str::to_owned,
    );
    let (mut lengths, mut codings) = (Vec::new(), Vec::new());
    for line in head.trim_end_matches("\r\n").split("\r\n").skip(1) {
        assert!(
            !line.contains(['\r', '\n', '\0']) && !line.starts_with([' ', '\t']),
            "{line:?}"
        );
        let (name, value) = line.split_once(':')?;
        assert!(!name.is_empty() && !name.contains([' ', '\t']), "{line:?}");
        match name.to_ascii_lowercase().as_str() {
            "content-length" => lengths.push(value.trim_matches([' ', '\t']).parse::<usize>().ok()?),
            "transfer-encoding" => codings.push(value.trim_matches([' ', '\t']).to_ascii_lowercase()),
            _ => {}
        }
    }
    let body = end + 2;
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Some(body),
        ([length], []) => body.checked_add(*length),
        ([], [coding]) if coding == "chunked" => {
            let mut at = body;
            loop {
                let line = &request[at..at + find(&request[at..], b"\r\n")?];
                let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let size = usize::from_str_radix(std::str::from_utf8(&line[..digits]).ok()?, 16).ok()?;
                at += line.len() + 2;
                if size == 0 {
                    let trailers = &request[at..];
                    return match trailers.strip_prefix(b"\r\n") {
                        Some(_) => Some(at + 2),
                        None => Some(at + find(trailers, b"\r\n\r\n")? + 4),
                    };
                }
                at += size;
                if request.get(at..at + 2)? != b"\r\n" {
                    return None;
                }
                at += 2;
            }
        }
        _ => None,
    }
}
