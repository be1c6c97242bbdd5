//! Heads, chunks and trailers, whole and in pieces.

use super::*;

const MAX_HEAD: usize = 1024;

/// How many bytes pass if they come in pieces of `size`, up to the request's end, and the fault.
fn passed(bytes: &[u8], size: usize) -> (usize, Option<FramingError>) {
    let mut framer = Framer::new(MAX_HEAD);
    let (mut passed, mut buffered) = (0, Vec::new());
    for piece in bytes.chunks(size) {
        buffered.extend_from_slice(piece);
        let step = framer.advance(&buffered);
        buffered.drain(..step.pass);
        passed += step.pass;
        if step.fault.is_some() || framer.is_ended() {
            return (passed, step.fault);
        }
    }
    (passed, None)
}

#[test]
fn a_request_ends_where_its_framing_says_whatever_the_pieces() {
    for (request, rest) in [
        ("GET / HTTP/1.1\r\n\r\n", "GET"),
        ("\r\n\r\nGET / HTTP/1.0\r\n\r\n", "x"),
        ("POST / HTTP/1.1\r\ncontent-length: 3\r\n\r\nabc", "d"),
        ("POST / HTTP/1.1\r\nContent-Length:\t0003 \r\n\r\n\r\n\n", "d"),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
            "\r\n",
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nA\r\n\r\n\r\n\r\n\r\n0\n\r\n003;a;b=c ; d = \"e\\\"\"\r\nabc\r\n0;x\r\nX: 1\r\nY:\r\n\r\n",
            "0",
        ),
    ] {
        let all = format!("{request}{rest}");
        for size in 1..=all.len() {
            assert_eq!(
                passed(all.as_bytes(), size),
                (request.len(), None),
                "{request:?} by {size}"
            );
        }
    }
}

#[test]
fn a_fault_is_found_whatever_the_pieces() {
    use FramingError::*;
    for (head, fault) in [
        ("GET / HTTP/1.1\n", BareLineFeed),
        ("\nGET / HTTP/1.1\r\n\r\n", BareLineFeed),
        ("G T / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET  / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET / HTTP/1.1 \r\n\r\n", RequestLine),
        ("GET /\r\n\r\n", RequestLine),
        ("GET /#a HTTP/1.1\r\n\r\n", RequestLine),
        ("GET /\ta HTTP/1.1\r\n\r\n", RequestLine),
        ("G:T / HTTP/1.1\r\n\r\n", RequestLine),
        (" GET / HTTP/1.1\r\n\r\n", RequestLine),
        ("GET / http/1.1\r\n\r\n", RequestLine),
        ("GET / HTTP/1.2\r\n\r\n", Version),
        ("PRI * HTTP/2.0\r\n\r\n", Version),
        ("GET / HTTP/1.1\r\nX: a\r\n b\r\n", Folded),
        ("GET / HTTP/1.1\r\n X: a\r\n", Folded),
        ("GET / HTTP/1.1\r\nX : a\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nX\t: a\r\n", SpaceBeforeColon),
        ("GET / HTTP/1.1\r\nX Y: a\r\n", Name),
        ("GET / HTTP/1.1\r\n: a\r\n", Name),
        ("GET / HTTP/1.1\r\nX\r\n", Name),
        ("GET / HTTP/1.1\r\nX\0: a\r\n", Name),
        ("GET / HTTP/1.1\r\nX: a\0\r\n", Value),
        ("GET / HTTP/1.1\r\nX: a\rb\r\n", Value),
        ("GET / HTTP/1.1\r\nX: a\r\r\n", Value),
        ("GET / HTTP/1.1\r\nX: a\u{7f}\r\n", Value),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            BothLengths,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            BothLengths,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
            TwoLengths,
        ),
        ("POST / HTTP/1.1\r\nContent-Length: 3, 3\r\n", Length),
        ("POST / HTTP/1.1\r\nContent-Length: +3\r\n", Length),
        (
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n",
            Length,
        ),
        (
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n",
            Length,
        ),
        ("POST / HTTP/1.1\r\nContent-Length:\r\n", Length),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
            Coding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Coding,
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
            Coding,
        ),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: \r\n\r\n", Coding),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            UnknownCoding,
        ),
    ] {
        for size in 1..=head.len() {
            assert_eq!(
                passed(head.as_bytes(), size),
                (0, Some(fault)),
                "{head:?} by {size}"
            );
        }
    }
    let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (good, bad, fault) in [
        ("", "\r\n", ChunkLine),
        ("", "g\r\n", ChunkLine),
        ("", "-3\r\n", ChunkLine),
        ("", "0x3\r\n", ChunkLine),
        ("", " 3\r\n", ChunkLine),
        ("", "3 \r\n", ChunkLine),
        ("", "3;\r\n", ChunkLine),
        ("", "3;a=\r\n", ChunkLine),
        ("", "3;a=\"b\r\n", ChunkLine),
        ("", "3;a=\"b\"c\r\n", ChunkLine),
        ("", "3;a\0\r\n", ChunkLine),
        ("", "00000000000000003\r\n", ChunkLine),
        ("", "3\n", BareLineFeed),
        ("", "3;a\n", BareLineFeed),
        ("3\r\nabc", "\n", ChunkEnd),
        ("3\r\nabc", "d\r\n", ChunkEnd),
        ("3\r\nabc", "\rd", ChunkEnd),
        ("3\r\nabc\r\n0\r\n", "\n", BareLineFeed),
        ("3\r\nabc\r\n0\r\n", "X : 1\r\n", SpaceBeforeColon),
        ("3\r\nabc\r\n0\r\n", "X: 1\n", BareLineFeed),
        ("3\r\nabc\r\n0\r\n", "GET / HTTP/1.1\r\n", Name),
    ] {
        let all = format!("{head}{good}{bad}");
        for size in 1..=all.len() {
            let expected = (head.len() + good.len(), Some(fault));
            assert_eq!(
                passed(all.as_bytes(), size),
                expected,
                "{good:?} {bad:?} by {size}"
            );
        }
    }
}

#[test]
fn heads_trailers_and_chunk_lines_have_a_limit() {
    let line = "GET / HTTP/1.1\r\n";
    let fits = MAX_HEAD - line.len() - "X: \r\n\r\n".len();
    for (count, fault) in [(fits, None), (fits + 1, Some(FramingError::Large))] {
        let head = format!("{line}X: {}\r\n\r\n", "a".repeat(count));
        for size in [1, 100, head.len()] {
            assert_eq!(passed(head.as_bytes(), size).1, fault, "{count} by {size}");
        }
    }
    let target = format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD));
    assert_eq!(passed(target.as_bytes(), 1), (0, Some(FramingError::LongTarget)));
    let many = format!("{line}{}\r\n", "X:\r\n".repeat(MAX_FIELDS + 1));
    assert_eq!(passed(many.as_bytes(), many.len()).1, Some(FramingError::Large));
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long = format!("{chunked}3;{}", "a".repeat(MAX_CHUNK_LINE));
    assert_eq!(
        passed(long.as_bytes(), 100),
        (chunked.len(), Some(FramingError::ChunkLine))
    );
    let large = format!("{chunked}0\r\nX: {}", "a".repeat(MAX_TRAILER_BYTES));
    assert_eq!(
        passed(large.as_bytes(), 100),
        (chunked.len() + 3, Some(FramingError::Large))
    );
}

#[test]
fn a_stand_in_says_what_could_be_read_and_no_length() {
    let stand_in = |head: &str| {
        let mut framer = Framer::new(MAX_HEAD);
        let fault = framer.advance(head.as_bytes()).fault.unwrap();
        assert!(framer.is_in_head());
        String::from_utf8(framer.stand_in(head.as_bytes(), fault)).unwrap()
    };
    assert_eq!(
        stand_in(
            "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nAccept: b\r\nTransfer-Encoding: chunked\r\nX: 1\r\n\r\n"
        ),
        "POST /a HTTP/1.1\r\nHost: a\r\nAccept: b\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        stand_in("POST /a HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        "POST /a HTTP/1.0\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        stand_in("\r\nPOST /a HTTP/1.0\nX: 1\n\n"),
        "POST /a HTTP/1.0\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        stand_in("POST /a HTTP/3.0\r\n"),
        "POST /a HTTP/1.1\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(
        stand_in("nonsense\r\n"),
        "GET / HTTP/1.1\r\nConnection: close\r\n\r\n"
    );
}

#[test]
fn extensions_are_noted_for_one_request() {
    let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut framer = Framer::new(MAX_HEAD);
    for (body, has) in [
        ("0\r\n\r\n", false),
        ("1;x\r\na\r\n0\r\n\r\n", true),
        ("0\r\n\r\n", false),
    ] {
        framer.advance(format!("{chunked}{body}").as_bytes());
        assert!(framer.is_ended());
        assert_eq!(framer.has_extensions(), has);
        framer.begin();
    }
}
