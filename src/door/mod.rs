//! Who may call: one rule, one tower layer, one file. The order of the layers is `http/stack.rs`'s.
//! Document: specification, section 7, `[server]` and `[access]`.

pub mod address;

pub mod overload;

pub mod signature;

pub mod token;

use std::convert::Infallible;

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, Response, StatusCode};

use crate::proxy::body::Body;

/// Writes a refusal, in the words of whoever is asked.
pub type Refuse = fn(StatusCode, &HeaderMap, &str) -> Response<Body>;

/// What a rule's layer returns: its own refusal at once, or the inner service's answer.
type Passed<F> = Either<Ready<Result<Response<Body>, Infallible>>, F>;

fn refused<F>(response: Response<Body>) -> Passed<F> {
    Either::Left(ready(Ok(response)))
}

#[cfg(test)]
mod tests;
