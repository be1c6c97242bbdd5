//! `token`: callers must send `Authorization: Bearer …` or `?token=…`; others get 401. The setting is in `[access]` in
//! `config.toml`.
//!
//! The rule removes the token from the request before any inner layer logs or forwards it, and from the query of a
//! `Referer` too: a page that was requested with `?token=…` sends its address there. Without a configured token these
//! places belong to the backend, and the rule does not touch them.

use std::sync::Arc;

use http::header::{AUTHORIZATION, Entry, HeaderMap, HeaderValue, REFERER, WWW_AUTHENTICATE};
use http::uri::PathAndQuery;
use http::{Request, Response, Uri};
use percent_encoding::percent_decode;

use crate::http::responses::{NotAdmitted, refusal};
use crate::proxy::body::Body;
use crate::server::contract_api::Call;
use payout_domain::secret::Secret;

/// The rule: requires this token; without one it accepts everybody.
#[expect(
    clippy::result_large_err,
    reason = "a refusal is a whole answer to the library, too"
)]
pub(crate) fn rule<B>(
    token: Option<Secret>,
) -> impl FnMut(&mut Request<B>) -> Result<(), Response<Body>> + Clone {
    let token = token.map(Arc::new);
    move |request| {
        let Some(token) = &token else { return Ok(()) };
        take_from_referer(request.headers_mut());
        let by_query = take_from_query(request).is_some_and(|given| token.matches(&given));
        let by_header = bearer(request.headers()).is_some_and(|given| token.matches(given));
        if by_header || Call::of(request.uri().path()).is_some() {
            // A right bearer token was meant for the sidecar. Any other `Authorization` next to a right token in the
            // query may be the backend's, so it stays; a payout call has no use for it.
            request.headers_mut().remove(AUTHORIZATION);
        }
        if by_header || by_query {
            return Ok(());
        }
        tracing::warn!("a call without the right token was refused");
        let mut response = refusal(request.headers(), &NotAdmitted::Token);
        let challenge = HeaderValue::from_static("Bearer");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        Err(response)
    }
}

/// The bearer token of the only `Authorization`. With two it returns `None`, because it cannot tell which one is meant.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let only = given.next().filter(|_| given.next().is_none())?;
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Removes the `token` parameters from a request's query and returns the first one's value, percent-decoded. A `+`
/// stays a plus: base64 contains it, and no token contains a space. Other parameters stay byte for byte.
fn take_from_query<B>(request: &mut Request<B>) -> Option<String> {
    let uri = request.uri();
    let (given, rest) = without_token(uri.path_and_query()?.as_str().as_bytes())?;
    let mut parts = uri.clone().into_parts();
    // A part of a valid path and query is valid. If that were ever wrong, the fallback `/` still hides the token.
    parts.path_and_query =
        Some(PathAndQuery::try_from(rest).unwrap_or_else(|_| PathAndQuery::from_static("/")));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    String::from_utf8(given).ok()
}

/// Removes the `token` parameters from each `Referer`. A `Referer` without them stays byte for byte.
fn take_from_referer(headers: &mut HeaderMap) {
    if let Entry::Occupied(mut referers) = headers.entry(REFERER) {
        for referer in referers.iter_mut() {
            if let Some((_, rest)) = without_token(referer.as_bytes()) {
                // A part of a valid value is valid. If that were ever wrong, an empty value still hides the token.
                *referer = HeaderValue::try_from(rest).unwrap_or_else(|_| HeaderValue::from_static(""));
            }
        }
    }
}

/// The value of a URL's first `token` parameter, percent-decoded, and the URL without any of them. `None` if it has
/// none.
fn without_token(url: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let at = url.iter().position(|byte| *byte == b'?')?;
    let (path, query) = url.split_at_checked(at)?;
    let query = query.get(1..)?;
    let is_token = |pair: &&[u8]| {
        let name = pair.split(|byte| *byte == b'=').next().unwrap_or_default();
        percent_decode(name).eq(b"token".iter().copied())
    };
    let (tokens, others): (Vec<&[u8]>, Vec<&[u8]>) = query.split(|byte| *byte == b'&').partition(is_token);
    let value = tokens.first()?.splitn(2, |byte| *byte == b'=').nth(1);
    let rest = if others.is_empty() {
        path.to_vec()
    } else {
        [path, others.join(&b'&').as_slice()].join(&b'?')
    };
    Some((percent_decode(value.unwrap_or_default()).collect(), rest))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;
    use crate::server::layers::tests::text;
    use payout_domain::handler::{SEND_PATH, STATUS_PATH};

    fn request(uri: &str, authorization: &[&str]) -> Request<()> {
        let mut request = Request::builder().uri(uri);
        for value in authorization {
            request = request.header(AUTHORIZATION, *value);
        }
        request.body(()).unwrap()
    }

    fn token(text: &str) -> Option<Secret> {
        Some(Secret::new(text.to_owned()))
    }

    /// The URI and the `Authorization` that the rule passes on when it requires this token; `None` for a refusal.
    async fn passed(
        token: Option<Secret>,
        uri: &str,
        authorization: &[&str],
    ) -> Option<(String, Vec<String>)> {
        let mut request = request(uri, authorization);
        match rule(token)(&mut request) {
            Ok(()) => {
                let values = request.headers().get_all(AUTHORIZATION).iter();
                let values = values.map(|value| value.to_str().unwrap().to_owned());
                Some((request.uri().to_string(), values.collect()))
            }
            Err(response) => {
                assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
                assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
                let text = text(response).await;
                assert!(
                    text.contains("请求未受理: 令牌缺失或不正确, 请检查 token"),
                    "{text}"
                );
                None
            }
        }
    }

    #[tokio::test]
    async fn the_right_bearer_passes_and_goes_no_further() {
        for value in ["Bearer k3y", "bearer k3y", "BEARER  k3y "] {
            let (_, inside) = passed(token("k3y"), "/a", &[value]).await.unwrap();
            assert!(inside.is_empty(), "{value}");
        }
    }

    #[tokio::test]
    async fn anything_else_is_refused() {
        let cases: [(&str, &[&str]); 13] = [
            ("/a", &[]),
            ("/a", &["Bearer"]),
            ("/a", &["Bearer "]),
            ("/a", &["Bearer k3"]),
            ("/a", &["Bearer k3yy"]),
            ("/a", &["k3y"]),
            ("/a", &["Basic k3y"]),
            ("/a", &["Bearer k3y", "Bearer k3y"]),
            ("/a?token", &[]),
            ("/a?token=", &[]),
            ("/a?token=k3", &[]),
            ("/a?Token=k3y&xtoken=k3y", &[]),
            ("/a?token=k3&token=k3y", &[]),
        ];
        for (uri, authorization) in cases {
            assert_eq!(
                passed(token("k3y"), uri, authorization).await,
                None,
                "{uri} {authorization:?}"
            );
        }
    }

    #[tokio::test]
    async fn the_token_leaves_the_query_and_the_rest_stays_byte_for_byte() {
        for (uri, inside) in [
            ("/a?token=k3y", "/a"),
            ("/a?x=%2f+%20&token=k3y&&y=1=2", "/a?x=%2f+%20&&y=1=2"),
            ("/a?token=k3y&x", "/a?x"),
            ("/a?x&token=k3y&token=other&token", "/a?x"),
            ("/a//b/../c?token=%6B3y&tokens=1", "/a//b/../c?tokens=1"),
            ("http://shop:1/a?token=k3y", "http://shop:1/a"),
            ("/a?x&%74oken=k3y&%54oken=1&to%6Be%6e=other", "/a?x&%54oken=1"),
            ("/a?t%6fken=k3y", "/a"),
        ] {
            let (reached, _) = passed(token("k3y"), uri, &[]).await.unwrap();
            assert_eq!(reached, inside);
        }
        assert!(passed(token("a+b/c=="), "/?token=a+b/c==", &[]).await.is_some());
        assert!(
            passed(token("a+b/c=="), "/?token=a%2Bb%2Fc%3D%3D", &[])
                .await
                .is_some()
        );
    }

    #[test]
    fn the_token_leaves_the_referer_and_others_stay_byte_for_byte() {
        let with_raw = HeaderValue::from_bytes(b"http://a/\xff?x=%zz&&token").unwrap();
        for (referer, inside) in [
            (
                HeaderValue::from_static("http://a/b?token=k3y"),
                &b"http://a/b"[..],
            ),
            (
                HeaderValue::from_static("/b?x=1&%74oken=k3y&y=%2f"),
                b"/b?x=1&y=%2f",
            ),
            (
                HeaderValue::from_static("http://a/?tokens=1&x=?token=k"),
                b"http://a/?tokens=1&x=?token=k",
            ),
            (HeaderValue::from_static("about:blank"), b"about:blank"),
            (with_raw, b"http://a/\xff?x=%zz&"),
        ] {
            let mut request = request("/a?token=k3y", &[]);
            request.headers_mut().insert(REFERER, referer.clone());
            request.headers_mut().append(REFERER, referer.clone());
            assert!(rule(token("k3y"))(&mut request).is_ok());
            let values: Vec<&[u8]> = request
                .headers()
                .get_all(REFERER)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            assert_eq!(values, [inside, inside]);
        }
        let mut theirs = request("/a", &[]);
        theirs
            .headers_mut()
            .insert(REFERER, HeaderValue::from_static("/b?token=theirs"));
        assert!(rule(None)(&mut theirs).is_ok());
        assert_eq!(theirs.headers()[REFERER], "/b?token=theirs");
    }

    #[tokio::test]
    async fn another_authorization_is_the_backends_but_no_payouts() {
        let (_, inside) = passed(token("k3y"), "/a?token=k3y", &["Basic eA=="])
            .await
            .unwrap();
        assert_eq!(inside, ["Basic eA=="]);
        for path in [SEND_PATH, STATUS_PATH] {
            let uri = format!("{path}?token=k3y");
            let (_, inside) = passed(token("k3y"), &uri, &["Basic eA=="]).await.unwrap();
            assert!(inside.is_empty(), "{path}");
        }
    }

    #[tokio::test]
    async fn without_a_token_nothing_is_touched() {
        let (uri, inside) = passed(None, "/a?token=theirs", &["Bearer theirs"]).await.unwrap();
        assert_eq!(
            (uri.as_str(), inside),
            ("/a?token=theirs", vec!["Bearer theirs".to_owned()])
        );
    }
}
