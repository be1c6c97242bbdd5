//! The kinds of merchant entries: how the orders of each are composed, where they go, and which orders it leads to.

use std::net::IpAddr;

use crate::contract::error::ApiError;
use crate::contract::send::{CLIENT_IP, SendRequest};
use crate::encoding::Encoding;
use crate::fields::Fields;
use crate::handler;
use crate::ids::{HandlerId, OpenId};
use crate::order::Destination;
use crate::wechat::{Product, v2, v3};

/// How a merchant's payouts are composed.
#[derive(Clone, Debug)]
pub enum MerchantKind {
    /// For WeChat Pay v3, merchant transfer.
    TransferBill {
        /// What each bill says in addition to the request.
        scene: v3::request::Scene,
    },
    /// For WeChat Pay v2.
    Wechat {
        /// The configured product. A request's `notifyWay` may turn a red packet into a mini-program red packet.
        product: Product,
        /// The merchant's texts.
        texts: v2::Texts,
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

impl MerchantKind {
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
        match self {
            Self::Wechat { product, texts } => {
                let product = match product {
                    Product::Redpack if request.wants_mini_program() => Product::MiniProgramRedpack,
                    Product::Redpack | Product::MiniProgramRedpack | Product::Transfer => *product,
                };
                let parameters = v2::parameters(product, request, texts, openid, client_ip)?;
                Ok((Destination::Wechat(product), parameters))
            }
            Self::TransferBill { scene } => {
                let parameters = v3::request::parameters(request, scene, openid)?;
                Ok((Destination::TransferBill, parameters))
            }
            Self::Handler { format, id, .. } => {
                let encoding = format.unwrap_or(asked);
                let parameters = handler::parameters(request, openid, client_ip, encoding)?;
                Ok((Destination::Handler(id.clone()), parameters))
            }
        }
    }

    /// Whether this entry leads to where an order was sent.
    #[must_use]
    pub fn leads_to(&self, destination: &Destination) -> bool {
        match (self, destination) {
            (Self::Wechat { product, .. }, Destination::Wechat(sent)) => {
                let is_packet = |product: Product| product != Product::Transfer;
                // One query serves both kinds of a merchant's red packets.
                product == sent || (is_packet(*product) && is_packet(*sent))
            }
            (Self::TransferBill { .. }, Destination::TransferBill) => true,
            (Self::Handler { id, formerly, .. }, Destination::Handler(sent)) => {
                id == sent || formerly.contains(sent)
            }
            (
                Self::Wechat { .. } | Self::TransferBill { .. } | Self::Handler { .. },
                Destination::Wechat(_) | Destination::TransferBill | Destination::Handler(_),
            ) => false,
        }
    }

    /// Where to ask about an order that is not on record.
    #[must_use]
    pub fn destination(&self) -> Destination {
        match self {
            Self::Wechat { product, .. } => Destination::Wechat(*product),
            Self::TransferBill { .. } => Destination::TransferBill,
            Self::Handler { id, .. } => Destination::Handler(id.clone()),
        }
    }
}
