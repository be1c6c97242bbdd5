//! Bodies built to exhaust memory or CPU: the sidecar refuses thousands of them in a row like any other malformed body,
//! and its memory does not grow.

use std::time::{Duration, Instant};

use crate::support::sidecar::{Encoding, Payout, Sidecar, To, Upstream, embedded};
use test_support::http::{exchange, request};

/// Concatenates `n` parts.
fn many(n: usize, part: impl Fn(usize) -> String) -> String {
    (0..n).map(part).collect()
}

fn json_bombs() -> Vec<Vec<u8>> {
    let good = Payout::new("BOMB1").body(Encoding::Json);
    let inner = good.trim_start_matches('{').to_owned();
    let nines = "9".repeat(60_000);
    let with = |field: &str| format!("{{{field},{inner}").into_bytes();
    let instead = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).into_bytes()
    };
    let amount = "\"amount\":\"100\"";
    vec![
        // Deep nesting.
        "[".repeat(100_000).into_bytes(),
        format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000)).into_bytes(),
        "{\"a\":".repeat(50_000).into_bytes(),
        format!("{}1{}", "{\"a\":".repeat(50_000), "}".repeat(50_000)).into_bytes(),
        // Many members.
        format!("{{{}\"z\":1}}", many(100_000, |n| format!("\"k{n}\":{n},"))).into_bytes(),
        format!("{{{}\"k\":1}}", many(100_000, |_| "\"k\":1,".into())).into_bytes(),
        with(&format!("\"{}\":1,\"amount\":1", "k".repeat(500_000))),
        format!("[{}1]", "1,".repeat(200_000)).into_bytes(),
        // Numbers.
        instead(amount, &format!("\"amount\":{nines}")),
        instead(amount, &format!("\"amount\":\"{nines}\"")),
        instead(amount, &format!("\"amount\":0.{nines}")),
        instead(amount, &format!("\"amount\":{nines}.5e{nines}")),
        instead(amount, "\"amount\":1e999999999"),
        instead(amount, "\"amount\":-0"),
        instead("\"tradeRecordId\":\"1\"", &format!("\"tradeRecordId\":{nines}")),
        // Characters.
        instead("user-1", "a\\ud800"),
        instead("user-1", "\\u0000"),
        instead("user-1", "a\0b"),
        instead("user-1", &"\\u4e2d".repeat(20_000)),
        [good.as_bytes(), b"\xff\xfe"].concat(),
        [&good.as_bytes()[..40], b"\xc0\x80", &good.as_bytes()[40..]].concat(),
        [&b"\xef\xbb\xbf\xef\xbb\xbf"[..], good.as_bytes()].concat(),
        good.encode_utf16().flat_map(u16::to_le_bytes).collect(),
        vec![0; 100_000],
        vec![b' '; 100_000],
        "\"".repeat(100_000).into_bytes(),
        format!("\"{}", "\\".repeat(100_000)).into_bytes(),
    ]
}

fn xml_bombs() -> Vec<Vec<u8>> {
    let good = Payout::new("BOMB1").body(Encoding::Xml);
    let instead = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to).into_bytes()
    };
    let doctype = |inner: &str| {
        format!(
            "<!DOCTYPE xml [{inner}]>{}",
            good.replace("<![CDATA[100]]>", "&z;")
        )
    };
    let laughs = many(20, |n| {
        let (this, before) = (char::from(b'b' + n as u8), char::from(b'a' + n as u8));
        format!("<!ENTITY {this} \"{}\">", format!("&{before};").repeat(10))
    });
    vec![
        // Entity expansion.
        doctype(&format!("<!ENTITY a \"lol\">{laughs}<!ENTITY z \"&u;\">")).into_bytes(),
        doctype(&format!("<!ENTITY z \"{}\">", "9".repeat(500_000))).into_bytes(),
        doctype("<!ENTITY z SYSTEM \"file:///etc/passwd\">").into_bytes(),
        doctype("<!ENTITY % p SYSTEM \"http://127.0.0.1:1/\"> %p;").into_bytes(),
        instead("<![CDATA[100]]>", &"&nosuch;".repeat(10_000)),
        instead("<![CDATA[100]]>", "&#0;"),
        instead("<![CDATA[100]]>", &format!("&#{};", "9".repeat(60_000))),
        instead("<![CDATA[100]]>", "&#xD800;"),
        instead("<![CDATA[user-1]]>", &"&amp;".repeat(100_000)),
        // Many elements.
        instead(
            "<xml>",
            &format!("<xml {}>", many(100_000, |n| format!("a{n}=\"\" "))),
        ),
        instead(
            "<xml>",
            &format!("<xml {}>", many(50_000, |n| format!("xmlns:a{n}=\"\" "))),
        ),
        instead("<amount>", &format!("<amount {}>", "a=\"\" ".repeat(100_000))),
        instead("<xml>", &format!("<xml>{}", "<k>1</k>".repeat(100_000))),
        instead("<xml>", &format!("<xml><{}", "k".repeat(500_000))),
        instead("<xml>", &format!("<xml a=\"{}", "k".repeat(500_000))),
        // Deep nesting.
        "<a>".repeat(200_000).into_bytes(),
        format!("{}1{}", "<a>".repeat(50_000), "</a>".repeat(50_000)).into_bytes(),
        instead("<xml>", &format!("<xml><a>{}", "<b/>".repeat(50_000))),
        // Markup that is never closed.
        instead("</xml>", &format!("<!--{}", "-".repeat(100_000))),
        instead("</xml>", &format!("<?p {}", "?".repeat(100_000))),
        instead("</xml>", &"<![CDATA[".repeat(20_000)),
        "<".repeat(100_000).into_bytes(),
        "<?xml".repeat(20_000).into_bytes(),
        // Characters.
        instead("<![CDATA[100]]>", "1\0"),
        instead("user-1", "a\u{fffe}b\u{1}"),
        [good.as_bytes(), b"\xff"].concat(),
        [&good.as_bytes()[..60], b"\xed\xa0\x80", &good.as_bytes()[60..]].concat(),
        good.encode_utf16().flat_map(u16::to_be_bytes).collect(),
        instead("<xml>", "<?xml version=\"1.0\" encoding=\"GBK\"?><xml>"),
        vec![0; 100_000],
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn bombs_by_the_thousand_are_refused_and_leave_nothing_behind() {
    let upstream = Upstream::start(To::Redpack).await;
    let dir = tempfile::tempdir().unwrap();
    let server = "[server]\nmax_body = \"4MiB\"\n";
    let configuration = format!("{server}{}{}", embedded(&dir), upstream.configuration());
    let sidecar = Sidecar::start_in(dir, &configuration, &[]).await;
    let bombs: Vec<(Encoding, Vec<u8>)> = json_bombs()
        .into_iter()
        .map(|body| (Encoding::Json, body))
        .chain(xml_bombs().into_iter().map(|body| (Encoding::Xml, body)))
        .collect();
    assert!(bombs.len() > 50);
    let mut slowest = (Duration::ZERO, String::new());
    let mut warm = 0;
    let mut requests = 0;
    for round in 0..40 {
        for four in bombs.chunks(4) {
            let sent = four.iter().map(async |(encoding, body)| {
                let headers = [("Content-Type", encoding.media())];
                let bytes = request("POST", "/pay/sendApiRedPack", &headers, body);
                let begun = Instant::now();
                let answer = exchange(sidecar.main, &bytes).await;
                let shown: String = String::from_utf8_lossy(body).chars().take(100).collect();
                let answer = answer.unwrap_or_else(|| panic!("no answer to {shown:?}"));
                assert_eq!(answer.status, 200, "{shown:?}: {}", answer.body);
                assert_eq!(
                    (answer.field("returnCode"), answer.code()),
                    ("FAIL".into(), "PARAM_ERROR".into()),
                    "{shown:?}"
                );
                assert!(
                    answer.body.len() < 2000,
                    "{shown:?} comes back: {}",
                    answer.body.len()
                );
                (begun.elapsed(), shown)
            });
            for (took, shown) in futures_util::future::join_all(sent).await {
                requests += 1;
                if took > slowest.0 {
                    slowest = (took, shown);
                }
            }
        }
        if round == 1 {
            warm = sidecar.memory_kib("VmHWM");
        }
    }
    let after = sidecar.memory_kib("VmHWM");
    eprintln!("{requests} bombs: {warm} KiB at most at first, {after} KiB in the end; slowest {slowest:?}");
    assert!(after < warm + 32 * 1024, "it grew from {warm} to {after} KiB");
    assert!(after < 200 * 1024, "{after} KiB");
    assert_eq!(upstream.fake.books().requests(), []);
    assert_eq!(
        sidecar.pay(Encoding::Xml, &Payout::new("BOMB1")).await.code(),
        "SUCCESS",
        "nothing was recorded"
    );
}
