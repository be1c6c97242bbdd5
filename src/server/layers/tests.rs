//! What the tests of several rules share.

use http::Response;
use http_body_util::BodyExt as _;

use crate::proxy::body::Body;

/// A response's body as text.
pub(super) async fn text(response: Response<Body>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}
