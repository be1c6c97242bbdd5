//! What a layer of the main port is towards its neighbours.

use std::convert::Infallible;

use http::{Request, Response};
use tower::Service;

use crate::proxy::body::Body;

/// A service for requests. It is always ready and makes no request wait: it accepts or refuses.
pub(crate) trait Serves<B>:
    Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static> + Clone
{
}

impl<S, B> Serves<B> for S where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Send + 'static> + Clone
{
}
