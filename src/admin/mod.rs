//! The admin port: probes, metrics and the operators' API. See docs/operate.md.
//!
//! [`health`] has the router and the probes, `guard` decides who may call what, [`api`] has the handlers of the
//! operators' API, [`view`] shows an order as JSON, `refusal` is the error answer.

pub(crate) mod api;

mod guard;

pub(crate) mod health;

mod refusal;

pub(crate) mod view;
