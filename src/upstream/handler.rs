//! The customer's own handler as an upstream: headers and exchanges. Not here: the bodies and the meaning of the
//! answers (`payout_domain::handler`). See docs/handler.md.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::http_client::Client;
use crate::clock::Clock;
use crate::http::media;
use crate::payouts::claim::Claim;
use crate::payouts::ports::{OrderQuestion, Upstream};
use crate::telemetry::context::RequestContext;
use payout_domain::contract::send::RequestCredentials;
use payout_domain::encoding::Encoding;
use payout_domain::handler;
use payout_domain::ids::OrderKey;
use payout_domain::order::Destination;
use payout_domain::outcome::{Evidence, Finding};
use payout_domain::secret::Secret;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TOKEN: HeaderName = HeaderName::from_static(handler::TOKEN_HEADER);

/// A handler.
pub(crate) struct HandlerUpstream {
    /// The client for its URL.
    pub client: Client,
    /// `handler_format`: the encoding of every request to it; `None`: that of the order's first request.
    pub format: Option<Encoding>,
    /// The longest that an attempt takes.
    pub longest: Duration,
    /// Sent with each call, so that the handler can tell it from a proxied one. Visible ASCII.
    pub token: Option<Secret>,
    /// For the check whether a lease still allows sending.
    pub clock: Arc<dyn Clock>,
}

impl HandlerUpstream {
    fn headers(&self, encoding: Encoding, idempotent: Option<&OrderKey>) -> Result<HeaderMap, String> {
        let mut headers = HeaderMap::with_capacity(7);
        RequestContext::pass_on(&mut headers);
        let accept = match encoding {
            Encoding::Json => ACCEPT_JSON,
            Encoding::Xml => ACCEPT_XML,
        };
        headers.insert(header::ACCEPT, accept);
        headers.insert(header::CONTENT_TYPE, media::content_type(encoding));
        if let Some(key) = idempotent {
            let value = HeaderValue::try_from(key.to_string()).map_err(|error| error.to_string())?;
            headers.insert(IDEMPOTENCY_KEY, value);
        }
        if let Some(token) = &self.token {
            let mut value =
                HeaderValue::try_from(token.expose()).map_err(|_| "handler_token is no header value")?;
            value.set_sensitive(true);
            headers.insert(TOKEN, value);
        }
        Ok(headers)
    }
}

#[async_trait]
impl Upstream for HandlerUpstream {
    async fn attempt(&self, claim: &Claim, credentials: &RequestCredentials) -> Evidence {
        let order = claim.order();
        if !matches!(order.upstream, Destination::Handler(_)) {
            return Evidence::NeverSent {
                why: super::moved(&order.upstream, "a handler"),
            };
        }
        let encoding = self.format.unwrap_or(order.encoding);
        let body = handler::body(&order.parameters, credentials, encoding);
        let headers = match self.headers(encoding, Some(&order.key)) {
            Ok(headers) => headers,
            Err(why) => return Evidence::NeverSent { why },
        };
        let may_send = claim.lease(&self.clock, self.longest);
        match self
            .client
            .post(handler::SEND_PATH, &headers, Bytes::from(body), may_send)
            .await
        {
            Ok(answer) => handler::evidence(&order.key, order.amount, answer.status.as_u16(), &answer.body),
            Err(failure) => failure.evidence(),
        }
    }

    async fn query(&self, question: &OrderQuestion, credentials: &RequestCredentials) -> Finding {
        if !matches!(question.upstream, Destination::Handler(_)) {
            return Finding::unclear(&super::moved(&question.upstream, "a handler"));
        }
        let encoding = self.format.unwrap_or(question.encoding);
        let fields = handler::question(&question.key, &question.wx_app_id, question.trade_record_id);
        let body = handler::body(&fields.into(), credentials, encoding);
        let headers = match self.headers(encoding, None) {
            Ok(headers) => headers,
            Err(why) => return Finding::unclear(&why),
        };
        match self
            .client
            .post(handler::STATUS_PATH, &headers, Bytes::from(body), || true)
            .await
        {
            Ok(answer) => {
                let expected = question.expected.as_ref().map(|(amount, _)| *amount);
                handler::finding(&question.key, expected, answer.status.as_u16(), &answer.body)
            }
            Err(failure) => Finding::unclear(&failure.why()),
        }
    }

    fn longest(&self) -> Duration {
        self.longest
    }
}

const ACCEPT_JSON: HeaderValue = HeaderValue::from_static("application/json");
const ACCEPT_XML: HeaderValue = HeaderValue::from_static("application/xml");
