//! A merchant's entry of the configuration as the flow uses it: how to compose its payouts, where they go, and what
//! its upstream promises about repeats.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ports::Upstream;
use super::watch::Contact;
use payout_domain::contract::error::ApiError;
use payout_domain::contract::send::{CLIENT_IP, RequestCredentials, SendRequest};
use payout_domain::encoding::Encoding;
use payout_domain::fields::Fields;
use payout_domain::ids::{HandlerId, OpenId};
use payout_domain::order::Destination;
use payout_domain::order::step::Policy;
use payout_domain::wechat::Product;
use payout_domain::{handler, wechat};

/// A merchant's entry.
pub struct Merchant {
    /// How its payouts are composed.
    pub kind: MerchantKind,
    /// Where they go.
    pub upstream: Arc<dyn Upstream>,
    /// What the upstream promises about repeats.
    pub policy: Policy,
    /// `settle_only`: the sidecar asks about old orders here, but sends none.
    pub is_settle_only: bool,
    /// How long the upstream has answered without a break.
    pub contact: Contact,
    /// Whether the upstream gets the credentials in a request: `request_credentials` towards WeChat,
    /// `forward_credentials` towards a handler.
    pub takes_credentials: bool,
}

/// How a merchant's payouts are composed.
#[derive(Clone, Debug)]
pub enum MerchantKind {
    /// For WeChat Pay v3, merchant transfer.
    TransferBill {
        /// What each bill says in addition to the request.
        scene: wechat::v3::request::Scene,
    },
    /// For WeChat Pay v2.
    Wechat {
        /// The configured product. A request's `notifyWay` may turn a red packet into a mini-program red packet.
        product: Product,
        /// The merchant's texts.
        texts: wechat::v2::Texts,
    },
    /// For the customer's handler.
    Handler {
        /// `handler_format`, where it is not `same`.
        format: Option<Encoding>,
        /// `handler_id`: the first claim pins it with each order.
        id: HandlerId,
        /// `formerly`: earlier ids of the same handler.
        formerly: Vec<HandlerId>,
    },
}

/// How much longer than the longest attempt a lease is: time to write the record, and for a process that is held up.
const LEASE_MARGIN: Duration = Duration::from_secs(10);

impl Merchant {
    /// Everything that the upstream will get, and which upstream that is.
    ///
    /// # Errors
    /// When a field does not fit this product (an order number over 28 characters for a red packet, no client
    /// address), then `PARAM_ERROR` with the field's name.
    pub fn compose(
        &self,
        request: &SendRequest,
        openid: &OpenId,
        client_ip: Option<IpAddr>,
        asked: Encoding,
    ) -> Result<(Destination, Fields<'static>), ApiError> {
        if client_ip.is_none() {
            return Err(ApiError::missing(CLIENT_IP));
        }
        match &self.kind {
            MerchantKind::Wechat { product, texts } => {
                let product = match product {
                    Product::Redpack if request.wants_mini_program() => Product::MiniProgramRedpack,
                    Product::Redpack | Product::MiniProgramRedpack | Product::Transfer => *product,
                };
                let parameters = wechat::v2::parameters(product, request, texts, openid, client_ip)?;
                Ok((Destination::Wechat(product), parameters))
            }
            MerchantKind::TransferBill { scene } => {
                let parameters = wechat::v3::request::parameters(request, scene, openid)?;
                Ok((Destination::TransferBill, parameters))
            }
            MerchantKind::Handler { format, id, .. } => {
                let encoding = format.unwrap_or(asked);
                let parameters = handler::parameters(request, openid, client_ip, encoding)?;
                Ok((Destination::Handler(id.clone()), parameters))
            }
        }
    }

    /// Whether this entry leads to where an order was sent.
    #[must_use]
    pub fn leads_to(&self, destination: &Destination) -> bool {
        match (&self.kind, destination) {
            (MerchantKind::Wechat { product, .. }, Destination::Wechat(sent)) => {
                let is_packet = |product: Product| product != Product::Transfer;
                // One query serves both kinds of a merchant's red packets.
                product == sent || (is_packet(*product) && is_packet(*sent))
            }
            (MerchantKind::TransferBill { .. }, Destination::TransferBill) => true,
            (MerchantKind::Handler { id, formerly, .. }, Destination::Handler(sent)) => {
                id == sent || formerly.contains(sent)
            }
            (
                MerchantKind::Wechat { .. }
                | MerchantKind::TransferBill { .. }
                | MerchantKind::Handler { .. },
                Destination::Wechat(_) | Destination::TransferBill | Destination::Handler(_),
            ) => false,
        }
    }

    /// Where to ask about an order that is not on record.
    #[must_use]
    pub fn destination(&self) -> Destination {
        match &self.kind {
            MerchantKind::Wechat { product, .. } => Destination::Wechat(*product),
            MerchantKind::TransferBill { .. } => Destination::TransferBill,
            MerchantKind::Handler { id, .. } => Destination::Handler(id.clone()),
        }
    }

    /// How long a claim of this merchant lasts.
    #[must_use]
    pub fn lease(&self) -> Duration {
        self.upstream.longest().saturating_add(LEASE_MARGIN)
    }

    /// The request's credentials if this entry takes any, otherwise none.
    #[must_use]
    pub fn credentials(&self, given: &RequestCredentials) -> RequestCredentials {
        if self.takes_credentials {
            given.clone()
        } else {
            RequestCredentials::default()
        }
    }
}
