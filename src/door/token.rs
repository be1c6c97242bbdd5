//! `token`: `Authorization: Bearer …`, or `?token=…`, which is taken out of the request before anything logs or forwards
//! it. 401 otherwise.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri};
use tower::{Layer, Service};

use super::{Passed, Refuse, refused};
use crate::proxy::body::Body;
use crate::secret::Secret;

/// The rule; without a token everybody is known.
#[derive(Clone)]
pub struct TokenLayer {
    token: Option<Arc<Secret>>,
    refuse: Refuse,
}

impl TokenLayer {
    /// Asks for this token.
    #[must_use]
    pub fn new(token: Option<Secret>, refuse: Refuse) -> Self {
        Self {
            token: token.map(Arc::new),
            refuse,
        }
    }
}

impl<S> Layer<S> for TokenLayer {
    type Service = Token<S>;
    fn layer(&self, inner: S) -> Token<S> {
        Token {
            inner,
            rule: self.clone(),
        }
    }
}

/// A service behind the rule.
#[derive(Clone)]
pub struct Token<S> {
    inner: S,
    rule: TokenLayer,
}

impl<S, B> Service<Request<B>> for Token<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Passed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let Some(token) = self.rule.token.clone() else {
            return Passed::Right(self.inner.call(request));
        };
        let by_query = match without_token(request.uri()) {
            Some((uri, given)) => {
                *request.uri_mut() = uri;
                token.matches(&given)
            }
            None => false,
        };
        let bearer = request
            .headers()
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        let by_header = bearer
            .and_then(|value| value.split_once(' '))
            .is_some_and(|(scheme, given)| {
                scheme.eq_ignore_ascii_case("bearer") && token.matches(given.trim())
            });
        if by_header {
            // It was meant for us; any other one is the backend's.
            request.headers_mut().remove(AUTHORIZATION);
        }
        if by_header || by_query {
            return Passed::Right(self.inner.call(request));
        }
        tracing::warn!("a call without the right token was refused");
        refused((self.rule.refuse)(
            StatusCode::UNAUTHORIZED,
            request.headers(),
            "the token is missing or wrong",
        ))
    }
}

/// The URI without its `token` parameters, and the first one's value. Other parameters stay byte for byte. Tokens that need
/// percent-encoding are for the header.
fn without_token(uri: &Uri) -> Option<(Uri, String)> {
    let query = uri.query()?;
    let (tokens, others): (Vec<&str>, Vec<&str>) =
        query.split('&').partition(|pair| pair.starts_with("token="));
    let given = tokens.first()?.strip_prefix("token=")?.to_owned();
    let text = if others.is_empty() {
        uri.path().to_owned()
    } else {
        format!("{}?{}", uri.path(), others.join("&"))
    };
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(text).ok()?);
    Some((Uri::from_parts(parts).ok()?, given))
}
