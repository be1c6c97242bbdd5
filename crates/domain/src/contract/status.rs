//! The request for an order's status, `POST /pay/getApiRedPacketStatus` (`docs/api.md`).

use crate::contract::error::ApiError;
use crate::contract::field_reader::FieldReader;
use crate::contract::send::{RequestCredentials, read_record_id};
use crate::fields::Fields;
use crate::ids::{MchId, OrderKey, OrderNo, TradeRecordId, WxAppId};

/// A request for an order's status.
#[derive(Debug)]
pub struct StatusRequest {
    /// The app under which the payout was made.
    pub wx_app_id: WxAppId,
    /// Merchant and order number.
    pub key: OrderKey,
    /// `tradeRecordId`.
    pub trade_record_id: TradeRecordId,
    /// Credentials in the request.
    pub credentials: RequestCredentials,
}

impl StatusRequest {
    /// Reads a request.
    ///
    /// # Errors
    /// `PARAM_ERROR` with the field's name if a required field is missing, has the wrong type or exceeds its limit.
    pub fn read(fields: Fields<'_>) -> Result<Self, ApiError> {
        let mut fields = FieldReader(fields);
        Ok(Self {
            wx_app_id: fields.parsed("wxAppId", WxAppId::parse)?,
            key: OrderKey {
                mch_id: fields.parsed("mchId", MchId::parse)?,
                order_no: fields.parsed("mchBillno", OrderNo::parse)?,
            },
            trade_record_id: read_record_id(&mut fields)?,
            credentials: RequestCredentials::read(&mut fields)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn all_four_fields_are_required() {
        let all = [
            ("wxAppId", "\"wx1\""),
            ("mchId", "\"19\""),
            ("mchBillno", "\"A1\""),
            ("tradeRecordId", "\"7\""),
        ];
        let body = |skip: &str| {
            let parts: Vec<_> = all
                .iter()
                .filter(|(n, _)| *n != skip)
                .map(|(n, t)| format!("\"{n}\":{t}"))
                .collect();
            format!("{{{}}}", parts.join(","))
        };
        assert!(StatusRequest::read(json::decode(&body("")).unwrap()).is_ok());
        for (name, _) in all {
            let text = body(name);
            let fault = StatusRequest::read(json::decode(&text).unwrap()).unwrap_err();
            assert_eq!(fault, ApiError::missing(name));
        }
    }
}
