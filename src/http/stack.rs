//! Every layer of the main port, in the order in which a request meets them, outermost first.
//!
//! 1. [`overload`](crate::door::overload): one request too many is turned away before anything is spent on it.
//! 2. [`address`](crate::door::address): who may reach us at all, before any secret is looked at.
//! 3. [`token`](crate::door::token): who is known; takes the token out of the request, so that nothing further in sees it.
//! 4. the fork: the contract's two paths to [`contract`](super::contract), every other path to [`proxy`](crate::proxy).
//!
//! No layer above the fork reads a byte of the body.
